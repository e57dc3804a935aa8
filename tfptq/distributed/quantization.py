"""``tfptq.quantize`` for samples that lie in shards."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfptq.base.arguments import whole_number
from tfptq.base.files import check_folder
from tfptq.base.progress import Progress
from tfptq.base.text import kind_of
from tfptq.config import Calibration, QuantizationConfig, resolve_config
from tfptq.data.calibration import CalibrationData
from tfptq.data.checks import InputSpec
from tfptq.distributed.drawing import draw
from tfptq.distributed.runners import InProcess, Runner
from tfptq.distributed.shards import Shard, calibration_batches, naming_shard, shards_of
from tfptq.fit.measure import MeasuredFile, measure
from tfptq.fit.measurements import Measurements
from tfptq.fit.sequential import DEFAULT_MAX_MEMORY
from tfptq.float_file.float_file import FloatFile
from tfptq.pipeline.result import QuantizationResult, warn_of_findings
from tfptq.pipeline.steps import convert, planned_steps
from tfptq.prepare.load_model import load_model
from tfptq.prepare.network import prepare
from tfptq.prepare.sources import file_source, known_inputs
from tfptq.quantization import quantize_job
from tfptq.tflite.app_metadata import AppMetadata

#: Samples that are drawn where the config has no ``statistics_samples``.
DRAWN_SAMPLES = 512


def quantize(
    source: Any,
    shards: Any,
    config: QuantizationConfig | str | None = None,
    *,
    signature: str | None = None,
    runner: Runner | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    app_metadata: AppMetadata | None = None,
) -> QuantizationResult:
    """Quantize a model on samples in any number of shards.

    **All samples** are measured where the runner works: ranges and histograms of all activations, and mean inputs of
    the kernels, before and after the weights are fitted. What comes back are sums, which are as large for ten samples
    as for a million.

    **A part of them** is drawn evenly from all shards into this process: ``config.statistics_samples``, or 512 where
    that is None. Everything else is found on these: equalization, bits, statistics of layers for learned rounding, the
    report. The reason is that rounding is learned kernel by kernel in the order of the network: the statistics of a
    kernel need the codes of all kernels before it, so that each kernel would cost the workers a pass of its own, and
    more samples than these hardly change its codes.

    The same samples in other shards give the same bytes, if they come in the same order and shards hold whole batches
    (multiples of 32 samples will do), but for the order in which float64 sums of kernel inputs are added.

    Args:
        source: what ``tfptq.quantize`` takes, if it tells its inputs: no subclassed model that does not.
        shards: a folder of ``.npy`` or ``.npz`` files, or a list of such files, or of functions without arguments that
            return iterables of samples, as ``representative_dataset``; see ``tfptq.distributed.shards``.
        config: how to quantize, as in ``tfptq.quantize``.
        signature: as in ``tfptq.quantize``.
        runner: ``InProcess()`` (default), ``Processes(workers)``, ``Beam(options)``, or another ``Runner``.
        seed: seed of everything random.
        progress: show a progress bar on terminals and in notebooks.
        checkpoint_dir: as in ``tfptq.quantize``.
        max_memory: bytes that stored activations may take in this process.
        app_metadata: as in ``tfptq.quantize``.

    Raises:
        ValueError: the model, the data or the config cannot be used; a shard is named.
        TypeError: a shard cannot be sent to other processes.
        OSError: a file cannot be read.

    Examples:
        >>> with tfptq.distributed.Processes(4) as runner:
        ...     result = tfptq.distributed.quantize(model, "shards", runner=runner)
    """
    config = resolve_config(config)
    seed = whole_number("seed", seed, 2**64 - 1)
    max_memory = whole_number("max_memory", max_memory, 2**63 - 1)
    check_folder(checkpoint_dir)
    shards, runner = shards_of(shards), runner or InProcess()
    model = file_source(source, None, signature) or load_model(source)
    specs = known_inputs(model)
    if not specs:
        raise ValueError(
            f"{kind_of(source)} does not tell the shapes of its inputs, which shards are read by; build the model with "
            "keras.Input, or pass the file that tfptq.quantize gives as float_tflite for some samples"
        )
    with Progress(progress, plan={"draw": "drawing samples", **planned_steps(config)}) as steps:
        with steps.step("draw"):
            most = config.statistics_samples or DRAWN_SAMPLES
            drawn = draw(runner, shards, specs, most)
        network = prepare(model, lambda: drawn.samples, config, seed, steps)
        job = convert(network, config, seed, steps)
        job = replace(job, measure=MeasuringShards(runner, shards), measured_samples=drawn.population)
        result = quantize_job(job, checkpoint_dir, max_memory, app_metadata)
    warn_of_findings(result)
    return result


@dataclass(frozen=True)
class MeasuringShards:
    """A ``tfptq.pipeline.job.Measure`` that reads shards in place of ``data``, in batches as those of ``data``."""

    runner: Runner
    shards: Sequence[Shard]

    def __call__(
        self, float_file: FloatFile, data: CalibrationData, calibration: Calibration, advance: Callable[[int], None]
    ) -> Measurements:
        """Measurements of all shards."""
        function = MeasureShard(MeasuredFile.of(float_file), data.inputs, data.batch_size, data.fill, calibration)
        found = self.runner.sum(function, self.shards)
        advance(found.samples)
        return found


@dataclass(frozen=True, eq=False)
class MeasureShard:
    """``measure`` of one shard, where a worker is."""

    file: MeasuredFile
    specs: tuple[InputSpec, ...]
    batch_size: int
    fill: bool
    calibration: Calibration

    def __call__(self, shard: Shard) -> Measurements:
        """Raises a DataError that names the shard."""
        with naming_shard(shard):
            batches = calibration_batches(shard, self.specs, self.batch_size, self.fill)
            return measure(self.file, batches, self.calibration)
