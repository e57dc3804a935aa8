"""Several configs of one model, tried at the same time: sweeps as independent jobs."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras

from tfptq.base.arguments import whole_number
from tfptq.config import QuantizationConfig
from tfptq.config.presets import resolve_config
from tfptq.distributed.runners import InProcess, Runner
from tfptq.evaluation.evaluate import evaluate
from tfptq.evaluation.result import Evaluation
from tfptq.prepare.load_model import load_model
from tfptq.quantization import quantize_keras_model
from tfptq.report.report import Report


@dataclass(frozen=True)
class TriedConfig:
    """What became of a config.

    Attributes:
        name: of the config.
        config: how the file was made.
        tflite: the file.
        report: what quantizing found.
        evaluation: the file on the evaluation samples, without latency: jobs disturb each other's.
    """

    name: str
    config: QuantizationConfig
    tflite: bytes
    report: Report
    evaluation: Evaluation


def try_configs(
    model: keras.Model | str | os.PathLike,
    configs: Mapping[str, QuantizationConfig | str] | Sequence[str],
    dataset: Any,
    evaluation: Any,
    metric: Any = "accuracy",
    *,
    labels: Any = None,
    runner: Runner | None = None,
    seed: int = 0,
) -> dict[str, TriedConfig]:
    """Quantize a model with each of several configs, and evaluate the files.

    Each config is a job of its own, which makes the same file as ``quantize_keras_model`` in one process.

    Args:
        model: Keras 3 model, or the path of a ``.keras`` or ``.h5`` file that the workers can read.
        configs: name -> config or name of a preset; or names of presets.
        dataset: calibration samples, as for ``quantize_keras_model``. For other processes: arrays, which each gets, or
            a function at the top of a module.
        evaluation: evaluation samples, as for ``tfptq.evaluate``, and sent like ``dataset``.
        metric: as for ``tfptq.evaluate``.
        labels: as for ``tfptq.evaluate``.
        runner: ``InProcess()`` (default), ``Processes(workers)``, ``Beam(options)``, or another ``Runner``.
        seed: random seed.

    Returns:
        Name -> what became of the config, in the order given.

    Raises:
        ValueError: no config, or the model, the data or a config cannot be used; the config is named.
        TypeError: an argument of the wrong type, or one that cannot be sent to other processes.
        OSError: a file cannot be read.

    Examples:
        >>> with tfptq.distributed.Processes(4) as runner:
        ...     found = tfptq.distributed.try_configs("net.keras", tfptq.PRESETS, x, (x_test, y_test), runner=runner)
    """
    named = configs if isinstance(configs, Mapping) else {name: name for name in configs}
    if not named:
        raise ValueError("configs is empty; give a config or the name of a preset at least")
    seed = whole_number("seed", seed, 2**64 - 1)
    jobs = [(name, resolve_config(config)) for name, config in named.items()]
    content = Path(model).read_bytes() if isinstance(model, str | os.PathLike) else _stored(model)
    suffix = Path(model).suffix if isinstance(model, str | os.PathLike) else ".keras"
    tried = (runner or InProcess()).sum(_Try(content, suffix, dataset, evaluation, labels, metric, seed), jobs)
    by_name = {item.name: item for item in tried}
    return {name: by_name[name] for name in named}


@dataclass(frozen=True)
class _Try:
    """One job, where a worker is."""

    model: bytes
    suffix: str
    dataset: Any
    evaluation: Any
    labels: Any
    metric: Any
    seed: int

    def __call__(self, job: tuple[str, QuantizationConfig]) -> list[TriedConfig]:
        """A list of one, which adds up to one of all; errors name the config."""
        name, config = job
        options = {"labels": self.labels, "latency_seconds": 0.0, "progress": False}
        try:
            result = quantize_keras_model(self._model, self.dataset, config, seed=self.seed, progress=False)
            found = evaluate(result, self.evaluation, self._model, self.metric, **options)
        except ValueError as error:
            raise ValueError(f"config {name!r}: {error}") from error
        return [TriedConfig(name, result.config, result.tflite, result.report, found)]

    @cached_property
    def _model(self) -> keras.Model:
        """Read once in each process, however many jobs it gets."""
        with tempfile.TemporaryDirectory(prefix="tfptq-") as folder:
            path = Path(folder) / f"model{self.suffix}"
            path.write_bytes(self.model)
            return load_model(path)


def _stored(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tfptq-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
