"""Make the report of a quantization from what the pipeline knows at its end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.blocks import BlockScales, run_maxima
from tfptq.core.decibels import signal_to_noise
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelId
from tfptq.float_file.layer_operators import operators_of_layers, reads_weights
from tfptq.layers import is_weighted, supports
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.prepare.reorder import ReorderedLayer
from tfptq.report.compare import compare_with_float
from tfptq.report.outputs import NOISY_DB, warnings_of_columns, warnings_of_outputs, warnings_of_parts
from tfptq.report.report import Report
from tfptq.report.values import BlockPicture, FloatOperator, LayerReport, SkippedLayer
from tfptq.tflite.layouts import LAYOUTS
from tfptq.tflite.model import TFLiteModel

#: Number of layers whose blocks the report pictures, and most pixels along a side.
PICTURES, PICTURE_SIZE = 4, 96
#: With fewer calibration samples, the report warns.
FEWEST_SAMPLES = 16
#: Weights that are so exact are not why a layer's output is below ``NOISY_DB``.
FINE_WEIGHTS_DB = 24.0
#: A difference that a float step makes, relative to the range of an output: half a step of an 8-bit grid.
LARGE_DIFFERENCE = 2e-3


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the pipeline knows at its end.

    Attributes:
        model: canonical float Keras model.
        float_file: float ``.tflite``.
        plan: operators on integers and on floats.
        weights: float values ``[O, I, T]`` of the layers' weights, in the file or not.
        kernels: the quantized kernels.
        tflite: the quantized file.
        samples: a few samples, Keras input name -> array.
        reordered: layer -> what reordering of channels did to it; empty without reordering.
        notes: what single steps have to tell the user.
    """

    model: keras.Model
    float_file: FloatFile
    plan: IntegerPlan
    weights: Mapping[KernelId, np.ndarray]
    kernels: Sequence[QuantizedKernel]
    tflite: bytes
    samples: Mapping[str, np.ndarray]
    reordered: Mapping[str, ReorderedLayer] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def written(self) -> set[KernelId]:
        """What the quantized kernels go by."""
        return {kernel.id for kernel in self.kernels}


def build_report(
    outcome: Outcome,
    config: QuantizationConfig,
    *,
    layer_config: QuantizationConfig,
    seed: int,
    num_samples: int,
    float_differences: dict[str, float],
) -> Report:
    """Describe a quantization.

    Args:
        outcome: what the pipeline knows.
        config: config that was used.
        layer_config: the same with the bits of each layer.
        seed: seed that was used.
        num_samples: number of calibration samples.
        float_differences: step -> largest relative difference from the float model.
    """
    snrs, outputs, tensors = compare_with_float(outcome.float_file, outcome.tflite, outcome.plan, outcome.samples)
    layers = tuple(_layer_report(outcome, kernel, snrs) for kernel in outcome.kernels)
    in_float, on_integers = _unquantized_layers(outcome, config)
    return Report(
        model_name=outcome.model.name,
        preset=config.label,
        samples=num_samples,
        seed=seed,
        file_bytes=len(outcome.tflite),
        float_file_bytes=len(outcome.float_file.data),
        layers=layers,
        skipped=in_float,
        unfitted=on_integers,
        float_operators=tuple(FloatOperator(*entry) for entry in outcome.plan.float_operators),
        warnings=(
            *_warnings_of_samples(outcome, num_samples),
            *_warnings_of_inputs(outcome, config),
            *_warnings_of_rounding(float_differences),
            *_warnings(outcome, config),
            *_warnings_of_layers(layers),
            *warnings_of_outputs(outputs),
            *warnings_of_parts(outcome.float_file, outcome.plan, outcome.model, tensors),
            *warnings_of_columns(outcome.float_file, outcome.plan, tensors, outputs),
            *_warnings_of_target(outcome, config),
        ),
        float_differences=float_differences,
        seconds={},
        pictures=block_pictures(outcome.reordered),
        outputs={name: signal_to_noise(*pair) for name, pair in outputs.items()},
    )


def block_pictures(reordered: Mapping[str, ReorderedLayer]) -> tuple[BlockPicture, ...]:
    """Pictures of the layers that reordering helped most, the best first."""
    gains = {name: layer.noise_before / layer.noise_after for name, layer in reordered.items() if layer.noise_after}
    best = sorted((name for name, gain in gains.items() if gain > 1.0), key=lambda name: -gains[name])
    return tuple(
        BlockPicture(
            name, *(_pixels(values) for values in (reordered[name].maxima_before, reordered[name].maxima_after))
        )
        for name in best[:PICTURES]
    )


def _pixels(maxima: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Block maxima with at most ``PICTURE_SIZE`` rows and columns; neighbours share a pixel where there are more."""
    for axis in (0, 1):
        maxima = run_maxima(maxima, -(-maxima.shape[axis] // PICTURE_SIZE), axis)
    return tuple(tuple(float(f"{value:.4g}") for value in row) for row in maxima)


def granularity_name(scales: BlockScales) -> str:
    """Which weights share a scale, in a few words for tables: see ``LayerReport.granularity``."""
    if scales.is_shift_scaler:
        return "tensor + shifts"
    if scales.granularity != "block":
        return scales.granularity
    outputs, inputs = scales.block_shape
    return f"block {outputs}x{inputs} {scales.kind}"


def _layer_report(outcome: Outcome, kernel: QuantizedKernel, snrs: Mapping[int, float]) -> LayerReport:
    first, values = kernel.uses[0], outcome.weights.get(kernel.id, kernel.values)
    bias_bytes = 0 if first.bias is None else 4 * len(values)
    ratios = [snrs[use.output] for use in kernel.uses if use.output in snrs]
    reordered = outcome.reordered.get(kernel.id.layer) if kernel.id.layer else None
    return LayerReport(
        name=kernel.id.label,
        type=_layer_type(outcome, kernel.id),
        granularity=granularity_name(kernel.weight.scales),
        bits=kernel.weight.bits,
        rounding=kernel.plan.rounding,
        layout=kernel.layout.name,
        scales=kernel.weight.scales.count,
        bytes_before=4 * values.size + bias_bytes,
        bytes_after=kernel.layout.stored_bytes(kernel.in_file(first), first.view) + bias_bytes,
        weight_snr_db=signal_to_noise(values, kernel.weight.dequantize()),
        output_snr_db=min(ratios, default=None),
        noise_before=None if reordered is None else reordered.noise_before,
        noise_after=None if reordered is None else reordered.noise_after,
    )


def _layer_type(outcome: Outcome, id: KernelId) -> str:
    return "constant of the converter" if id.layer is None else type(outcome.model.get_layer(id.layer)).__name__


def _unquantized_layers(
    outcome: Outcome, config: QuantizationConfig
) -> tuple[tuple[SkippedLayer, ...], tuple[SkippedLayer, ...]]:
    """Layers whose weights were not fitted by their config: those that compute in float, and those on integers."""
    operators = operators_of_layers(outcome.float_file, outcome.model)
    float_reasons = {tensor: reason for _, tensor, reason in outcome.plan.float_operators}
    in_float: list[SkippedLayer] = []
    on_integers: list[SkippedLayer] = []
    for layer in outcome.model.layers:
        keys = [key for key in outcome.weights if key.layer == layer.name]
        if not is_weighted(layer) or (keys and outcome.written.issuperset(keys)):
            continue
        results = _results_without_fitted_kernels(outcome, keys, operators[layer.name])
        reasons = [float_reasons[result] for result in results if result in float_reasons]
        cause = _cause(outcome, config, layer, keys, reasons) + _where_computed(len(results), len(reasons))
        is_float = bool(reasons) if results else _unknown_operators_are_likely_float(outcome)
        (in_float if is_float else on_integers).append(SkippedLayer(layer.name, type(layer).__name__, cause))
    return tuple(in_float), tuple(on_integers)


def _results_without_fitted_kernels(
    outcome: Outcome, keys: Sequence[KernelId], positions: Sequence[int]
) -> tuple[str, ...]:
    """Names of what the operators of a layer write that hold none of its fitted weights.

    Args:
        outcome: what the pipeline knows.
        keys: weights of the layer.
        positions: positions of its operators.
    """
    model = outcome.float_file.model
    fitted = {use.operator for kernel in outcome.kernels if kernel.id in keys for use in kernel.uses}
    others = [position for position in positions if position not in fitted]
    with_weights = [position for position in others if reads_weights(model, position)]
    return tuple(model.name(model.operators[position].outputs[0]) for position in with_weights or others)


def _cause(
    outcome: Outcome,
    config: QuantizationConfig,
    layer: keras.Layer,
    keys: Sequence[KernelId],
    float_reasons: Sequence[str],
) -> str:
    """Why the weights of a layer were not fitted by its config.

    Args:
        outcome: what the pipeline knows.
        config: config that was used.
        layer: the layer.
        keys: its weights.
        float_reasons: why operators of the layer compute in float.
    """
    if config.for_layer(layer.name).skip:
        return "the config skips it"
    if not supports(layer):
        return f"tfptq has no quantization for {type(layer).__name__}"
    found = {kernel.id for kernel in outcome.float_file.kernels}
    lost = [key.name for key in keys if key not in found]
    if lost:
        which = "its weights" if len(lost) == len(keys) else f"its {', '.join(lost)}"
        return f"the converter changed {which} beyond recognition"
    return ", ".join(dict.fromkeys(float_reasons))


def _where_computed(operators: int, in_float: int) -> str:
    """What the cause leaves open about so many operators of a layer, of which so many compute in float."""
    if not operators:
        return "; the file names no operator after it"
    if not in_float:
        return "; its constants are integers that no config was fitted to"
    if in_float < operators:
        return f"; {in_float} of its {operators} operators compute in float, the others on integers"
    return ""


def _unknown_operators_are_likely_float(outcome: Outcome) -> bool:
    """Whether a layer whose operators are not known is rather among the float ones.

    It is a guess: there are float operators, and no integer kernel without a Keras weight, which could be the layer's.
    """
    return bool(outcome.plan.float_operators) and all(kernel.id.layer is not None for kernel in outcome.kernels)


def _warnings_of_samples(outcome: Outcome, num_samples: int):
    if num_samples < FEWEST_SAMPLES:
        yield f"calibration saw {num_samples} samples; a few hundred typical ones give better ranges"
    first = next(iter(outcome.samples.values()))
    if len(first) > 1 and all((values == values[:1]).all() for values in outcome.samples.values()):
        yield "the first calibration samples are all the same; give a few hundred typical ones"


def _warnings_of_inputs(outcome: Outcome, config: QuantizationConfig):
    """Inputs that ``input_type`` does not apply to: those that are no floats in Keras."""
    model, readers = outcome.float_file.model, outcome.float_file.model.consumers()
    if config.interface_types[0] == "float32":
        return
    for tensor in outcome.model.inputs:
        index = outcome.float_file.inputs[tensor.name]
        if model.is_float(index):
            continue
        operators = [model.operators[at] for at in readers.get(index, [])]
        cast = any(model.operator_name(it) == "CAST" and model.is_float(it.outputs[0]) for it in operators)
        does = ", where the file casts it to float32 and quantizes that" if cast else ""
        yield (
            f"input_type={config.interface_types[0]!r} does not change input {tensor.name!r}, which is {tensor.dtype} "
            f"in Keras and is passed as it is{does}"
            + ("; build the model with keras.Input(dtype='float32') for integers from the start" if cast else "")
        )


def _warnings_of_layers(layers: Sequence[LayerReport]):
    measured = [(layer.output_snr_db, layer) for layer in layers if layer.output_snr_db is not None]
    noisy = [(decibels, layer) for decibels, layer in measured if decibels < NOISY_DB]
    if noisy:
        decibels, worst = min(noisy, key=lambda pair: pair[0])
        cure = "More weight_bits, a finer granularity, or skip=True by an override make a layer more exact"
        if worst.weight_snr_db > FINE_WEIGHTS_DB:
            cure = (
                f"Its weights have {worst.weight_snr_db:.0f} dB, so that most of the noise comes from the rounding of "
                "activations: activation_bits=16 makes them finer"
            )
        yield (
            f"the outputs of {len(noisy)} layers have a signal to noise below {NOISY_DB:g} dB, that of {worst.name!r} "
            f"{decibels:.1f} dB: are the calibration samples typical? {cure}"
        )


def _warnings_of_rounding(float_differences: Mapping[str, float]) -> Iterator[str]:
    """What float32 itself does to a network: steps pass that are no further from it than its own rounding."""
    step, worst = max(float_differences.items(), key=lambda item: item[1], default=("", 0.0))
    if worst > LARGE_DIFFERENCE:
        yield (
            f"the rounding of float32 alone moves the outputs of this network by {worst:.2g} of their range (as found "
            f"after step {step!r}): it subtracts large, nearly equal values, or amplifies small differences. No file "
            "can be more exact; subtract such values before the model, in float64, or train it on differences"
        )


def _warnings_of_target(outcome: Outcome, config: QuantizationConfig) -> Iterator[str]:
    """What the target makes of the widths that the config asks for, and operators that it lacks."""
    widths = (config.weight_bits,) if config.mixed_precision is None else config.mixed_precision.bits
    wide = [kernel.id.label for kernel in outcome.kernels if kernel.weight.bits == 8 and kernel.id.layer is not None]
    if min(widths) < 8 and wide and not config.target.narrow_int8 and len(wide) < len(outcome.kernels):
        yield (
            f"{len(wide)} of {len(outcome.kernels)} kernels have 8 bits: target {config.target.name!r} stores them in "
            "INT8 in any case, or they are small ones at the inputs and outputs, or fewer bits would cost more than "
            f"latency_budget={config.latency_budget:g} allows"
        )
    ratio = None if config.mixed_precision is None else config.mixed_precision.ratio
    found = _stored_ratio(outcome)
    if ratio is not None and found > 1.02 * ratio and not config.target.narrow_int8:
        yield (
            f"the kernels take {found:.2f} of their bytes in INT8, and mixed_precision.ratio is {ratio:g}: target "
            f"{config.target.name!r} has no smaller layouts for them within latency_budget={config.latency_budget:g}"
        )
    model = TFLiteModel(outcome.tflite)
    kinds = {model.operator_name(operator) for operator in model.operators}
    for kind in sorted(kinds.intersection(config.target.missing)):
        yield f"target {config.target.name!r} has no kernel for {kind}, which the file holds"


def _stored_ratio(outcome: Outcome) -> float:
    """Bytes of codes and scales of all layers, as a share of what they would take in INT8."""
    own = [kernel for kernel in outcome.kernels if kernel.id.layer is not None]
    stored = sum(kernel.layout.stored_bytes(kernel.in_file(kernel.uses[0]), kernel.uses[0].view) for kernel in own)
    return stored / max(sum(kernel.values.size + 4 * len(kernel.values) for kernel in own), 1)


def _warnings(outcome: Outcome, config: QuantizationConfig) -> Iterator[str]:
    yield from outcome.notes
    # Eight bits lose next to nothing by nearest rounding.
    narrow = [kernel for kernel in outcome.kernels if kernel.plan.reason is not None and kernel.weight.bits < 8]
    for reason in dict.fromkeys(kernel.plan.reason for kernel in narrow):
        names = ", ".join(kernel.id.label for kernel in narrow if kernel.plan.reason == reason)
        yield f"rounded to the nearest codes, without statistics of inputs: {names}; {reason}"
    batch_size = outcome.float_file.batch_size
    if batch_size not in (None, config.target.batch_size) and outcome.model.inputs[0].shape[0] is None:
        yield f"the file takes {batch_size} sample at a time: its recurrent layers cannot have a dynamic batch"
    uses = sum(len(kernel.uses) for kernel in outcome.kernels)
    expected = {name for names in config.target.layouts.values() for name in names}
    for layout in LAYOUTS:
        count = sum(len(kernel.uses) for kernel in outcome.kernels if kernel.layout is layout)
        if count and layout.cost is not None and layout.name not in expected:
            yield f"{count} of {uses} kernels {layout.cost}"
    for kernel in outcome.kernels:
        if kernel.id.layer is None:
            yield f"kernel {kernel.id.name!r} is no weight of a Keras layer; it is quantized per channel at 8 bits"
        elif not outcome.weights[kernel.id].any():
            yield f"all weights of layer {kernel.id.label!r} are 0"
        elif not kernel.weight.codes.any():
            yield (
                f"all codes of layer {kernel.id.label!r} are 0 although its weights are not: beside its "
                "bias, what it makes of its input is too small for integers, so that the layer is constant in the "
                "file. Are the calibration samples typical? skip=True by an override leaves it in float"
            )
