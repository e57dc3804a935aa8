"""How much the outputs lose when single layers are quantized."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfptq.base import json_values
from tfptq.base.progress import Progress
from tfptq.config import QuantizationConfig, resolve_config
from tfptq.core.blocks import quantize_nearest
from tfptq.core.decibels import decibels
from tfptq.data.checks import Batch
from tfptq.exploration.partial_files import PartialFiles
from tfptq.float_file.file_model import FileModel
from tfptq.graph.float_equality import model_outputs
from tfptq.layers import supports, weight_specs
from tfptq.prepare.network import FloatNetwork, prepare
from tfptq.prepare.sensitivity import SAMPLES, output_errors

#: Variables of a layer, and what rounding adds to each.
Change = list[tuple[keras.Variable, np.ndarray]]


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer costs, as signal to noise of the outputs: the lower, the more sensitive.

    Attributes:
        layer: its name; that of the tensor for a kernel that no layer of the Keras model has.
        bits: width of its weights.
        weights: number of them.
        alone_db: dB where this layer alone is quantized.
        rest_db: dB where all layers but this one are, or None where that was not measured.
        measured: whether ``alone_db`` was measured, and not taken from statistics.
    """

    layer: str
    bits: int
    weights: int
    alone_db: float
    rest_db: float | None = None
    measured: bool = False


@dataclass(frozen=True)
class Sensitivities:
    """The layers of a model in the order of computation.

    Attributes:
        model: its name.
        layers: one row for each layer that the config quantizes.
    """

    model: str
    layers: tuple[LayerSensitivity, ...]

    def __iter__(self) -> Iterator[LayerSensitivity]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def worst_first(self) -> tuple[LayerSensitivity, ...]:
        """The layers, the most sensitive one first."""
        return tuple(sorted(self.layers, key=lambda row: row.alone_db))

    def render(self) -> str:
        """A table."""
        width = max(len("layer"), *(len(row.layer) for row in self.layers))
        header = f"{'layer':{width}}  bits   weights  alone, dB  rest, dB"
        lines = [f"{self.model}: signal to noise of the outputs", header]
        for row in self.layers:
            rest = "" if row.rest_db is None else f"{row.rest_db:8.1f}"
            lines.append(f"{row.layer:{width}}  {row.bits:4}  {row.weights:8,}  {row.alone_db:9.1f}  {rest}".rstrip())
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text; ``from_json`` gives equal sensitivities back."""
        return json_values.to_json(self, indent)

    @classmethod
    def from_json(cls, text: str) -> "Sensitivities":
        """Read what ``to_json`` wrote; a ValueError if it is something else."""
        return json_values.from_json(cls, text, "a list of sensitivities")


def layer_sensitivity(
    model: Any,
    dataset: Any,
    config: QuantizationConfig | str | None = None,
    *,
    measured: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Sensitivities:
    """The effect of quantizing single layers on the outputs, as signal-to-noise ratios.

    The signal is the variation of the outputs from sample to sample; all outputs have the same weight.

    By default, the effect of rounding weights to nearest is estimated to first order, without the part that is the same
    for all samples. This takes one backward pass for each of 32 samples and 4 directions, independent of the number of
    layers: seconds, or a minute for networks such as MobileNetV2. A layer whose weights have no gradient is measured
    instead, by one forward pass with its weights rounded.

    With ``measured``, the model is quantized once as configured. Then two files are run on 32 samples for each layer:
    one in which only this layer is quantized, with its learned rounding and its activations, and one in which all
    others are. Kernels of models without a known Keras graph are always measured.

    Args:
        model: what ``quantize`` takes.
        dataset: samples as for ``quantize_keras_model``.
        config: how to quantize, or the name of a preset; None for the default.
        measured: measure with quantized files instead.
        seed: random seed.
        progress: show progress bars when standard error is a terminal.

    Raises:
        ValueError: the model, the data or the config cannot be used.

    Examples:
        >>> print(tfptq.layer_sensitivity(model, images[:64], "w4a8_channel"))
    """
    steps = Progress(progress)
    config = resolve_config(config)
    network = prepare(model, dataset, config, seed, steps)
    if measured or isinstance(network.model, FileModel):
        rows = _from_files(network, config, seed, steps)
    else:
        rows = _from_statistics(network, network.model, seed, steps)
    return Sensitivities(network.model.name, tuple(rows))


def _from_files(
    network: FloatNetwork, config: QuantizationConfig, seed: int, steps: Progress
) -> Iterator[LayerSensitivity]:
    files = PartialFiles.of(network, config, seed, steps)
    runs = _samples(network)
    expected = _joined(files.outputs(files.float_content, runs))
    with steps.step("measure layers", total=len(files.layers)) as advance:
        for layer, kernels in files.layers.items():
            alone, rest = (
                decibels(1.0, _noise(expected, _joined(files.outputs(content, runs))))
                for content in (files.only(layer), files.all_but(layer))
            )
            sizes = sum(kernel.values.size for kernel in kernels)
            yield LayerSensitivity(layer, kernels[0].weight.bits, sizes, alone, rest, measured=True)
            advance(1)


def _from_statistics(
    network: FloatNetwork, model: keras.Model, seed: int, steps: Progress
) -> Iterator[LayerSensitivity]:
    # The config of the network has the bits of mixed precision.
    own = {layer.name: network.config.for_layer(layer.name) for layer in model.layers if supports(layer)}
    own = {name: config for name, config in own.items() if not config.keeps_weights}
    changes = {name: _rounding(model.get_layer(name), config) for name, config in own.items()}
    runs = _samples(network)
    with steps.step("sensitivity", total=SAMPLES) as advance:
        errors = output_errors(model, runs, changes, seed=seed, advance=advance)
    for name, change in changes.items():
        reached = errors[name] > 0 or not any(values.any() for _, values in change)
        noise = errors[name] if reached else _measured_error(model, runs, change)
        size = sum(values.size for _, values in change)
        yield LayerSensitivity(name, own[name].weight_bits, size, decibels(1.0, noise), measured=not reached)


def _samples(network: FloatNetwork) -> list[Batch]:
    """About as many samples as the statistics want, spread over the data."""
    found, count = [], 0
    for batch in network.data.spread(SAMPLES):
        found.append(batch)
        count += len(next(iter(batch.values())))
        if count >= SAMPLES:
            break
    return found


def _rounding(layer: keras.Layer, config: QuantizationConfig) -> Change:
    """What rounding to nearest adds to the weights of a layer, with scales as its config has them."""
    change = []
    for spec in weight_specs(layer):
        view = spec.values()
        rounded = quantize_nearest(view, config.scales_of(view), config.weight_bits).dequantize()
        change.append((spec.variable, spec.view.from_view(rounded - view)))
    return change


def _measured_error(model: keras.Model, runs: Sequence[Batch], change: Change) -> float:
    """Noise of the outputs with changed weights, in units of what they vary by. The weights are put back."""
    expected = _joined(model_outputs(model, batch) for batch in runs)
    before = [keras.ops.convert_to_numpy(variable).copy() for variable, _ in change]
    try:
        for variable, values in change:
            variable.assign_add(values)
        found = _joined(model_outputs(model, batch) for batch in runs)
    finally:
        for (variable, _), values in zip(change, before, strict=True):
            variable.assign(values)
    return _noise(expected, found)


def _joined(runs: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Each output of all batches ``[samples, ...]``, float64."""
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*runs, strict=True)]


def _noise(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Squared error of the outputs in units of what they vary by; the mean over those that vary."""
    ratios = []
    for values, others in zip(expected, found, strict=True):
        power = np.square(values - values.mean(axis=0)).sum()
        if power > 1e-12 * np.square(values).sum():
            ratios.append(np.square(values - others).sum() / power)
    return float(np.mean(ratios)) if ratios else 0.0
