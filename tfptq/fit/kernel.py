"""Fit one kernel: scales, codes and the correction of its bias.

From the weights and the mean inputs alone (``fit_on_means``), or on statistics of the quantized prefix
(``fit_on_prefix``), where the bias then also takes out what all kernels before have added. The mathematics is in
``tfptq.core``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tfptq.config import PerBlock, PerChannel, PerTensor, QuantizationConfig, Rounding
from tfptq.core.adaround import AdaRoundOptions
from tfptq.core.affine import ActivationGrid, weight_code_limit
from tfptq.core.attention_round import AttentionRoundOptions
from tfptq.core.bias_correction import correct_bias
from tfptq.core.blocks import BlockScales, QuantizedWeight, block_shape, quantize_nearest
from tfptq.core.products import threads_for
from tfptq.core.rounding import round_weight
from tfptq.core.scale_search import search_scales
from tfptq.core.statistics import CentredStatistics
from tfptq.core.weight_scales import fit_scales
from tfptq.fit.measure import Measurements
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.matching import KernelKey, WeightBinding, WeightKey, is_keras_weight, layer_name
from tfptq.lowering.choose_layout import asked_layout

#: What a kernel gets that is not the weight of any Keras layer (the converter made or changed it). No field of the
#: model's config reaches it.
UNMATCHED_CONFIG = QuantizationConfig(PerChannel())

#: Multiples of the scales, in steps of 0.05, that are tried together with the rounding below 8 bits, where it pays: in
#: small kernels, where the lattice of what codes can add up to is coarse (``core.rounding``). Each costs a coordinate
#: descent, whose work grows with the square of the inputs. The most that a kernel may have of these lets depthwise
#: layers pass, and windows of 3x3 on up to 22 channels; it is a choice, not the result of a benchmark.
GAINS = tuple(np.linspace(0.7, 1.25, 12))
MOST_INPUTS_FOR_GAINS = 200
#: Positions for each input of a kernel below which statistics are thin: the pull towards the float weights grows, and
#: of a part of the samples only, statistics are not taken. Up to 1 the covariance of the inputs is singular; this keeps
#: away from there, and is a choice as well.
FEW_POSITIONS = 8


@dataclass(frozen=True, eq=False)
class FittedWeight:
    """A quantized weight and the correction of its layer's bias.

    Attributes:
        weight: codes and scales.
        bias_shift: float32 ``[O]`` to add to the float bias; zeros without bias correction.
        bindings: the uses of the weight in the float file.
    """

    weight: QuantizedWeight
    bias_shift: np.ndarray
    bindings: tuple[WeightBinding, ...]

    def bias_of(self, float_file: FloatFile, binding: WeightBinding) -> np.ndarray:
        """float32 ``[O]`` corrected bias of one use; zeros and the correction where it had none."""
        bias = float_file.bias(binding)
        shift = self.bias_shift if binding.row_factors is None else self.bias_shift * binding.row_factors
        return (shift if bias is None else bias + shift).astype(np.float32)

    def kernel_of(self, binding: WeightBinding) -> np.ndarray:
        """float32 ``[O, I, T]`` dequantized kernel of one use."""
        kernel = self.weight.dequantize()
        return kernel if binding.row_factors is None else kernel * binding.row_factors[:, None, None]


#: The quantized weights of a network.
Fitted = dict[KernelKey, FittedWeight]


@dataclass(frozen=True, eq=False)
class FittingTask:
    """What fitting reads.

    Attributes:
        float_file: float model.
        weights: Keras weights as canonical views ``[O, I, T]``.
        measurements: what calibration measured.
        grids: integer grids of the activations.
        config_of: config of the layer of a Keras weight.
        seed: seed of everything random.
    """

    float_file: FloatFile
    weights: Mapping[WeightKey, np.ndarray]
    measurements: Measurements
    grids: Mapping[int, ActivationGrid]
    config_of: Callable[[WeightKey], QuantizationConfig]
    seed: int

    def view(self, key: KernelKey, bindings: tuple[WeightBinding, ...]) -> np.ndarray:
        """Float ``[O, I, T]`` of a weight."""
        return self.weights[key] if is_keras_weight(key) else self.float_file.kernel(bindings[0])

    def config(self, key: KernelKey) -> QuantizationConfig:
        """Config of a weight."""
        return self.config_of(key) if is_keras_weight(key) else UNMATCHED_CONFIG

    def storable(self, scales: BlockScales, key: KernelKey) -> BlockScales:
        """Scales of a weight that the file can hold.

        Raises:
            ValueError: the layout cannot; the message names the layer.
        """
        layout = asked_layout(self.config(key))
        try:
            return scales if layout is None else layout.stored_scales(scales)
        except ValueError as error:
            raise ValueError(f"layer {layer_name(self.float_file.model, key)!r}: {error}") from error


def needs_statistics(config: QuantizationConfig, view_shape: tuple[int, int, int]) -> bool:
    """Whether a weight of a shape ``(O, I, T)`` is to be fitted on statistics of its inputs and outputs."""
    return config.weight_scale in ("output", "cosine") or rounding_method(config, view_shape) != "nearest"


def has_exact_scales(config: QuantizationConfig) -> bool:
    """Whether the file holds any scales as they are, so that they may change after ``FittingTask.storable``."""
    layout = asked_layout(config)
    return layout is None or layout.exact_scales


def rounding_method(config: QuantizationConfig, view_shape: tuple[int, int, int]) -> str:
    """Method that a config wants for a weight of a shape ``(O, I, T)``: nearest above ``rounding.most_inputs``."""
    limit = config.rounding.most_inputs
    return config.rounding.method if limit is None or view_shape[1] * view_shape[2] <= limit else "nearest"


def fit_on_means(task: FittingTask, key: KernelKey, bindings: tuple[WeightBinding, ...]) -> FittedWeight:
    """Quantize a weight from its values and its mean inputs."""
    view, config = task.view(key, bindings), task.config(key)
    scales = task.storable(fit_scales(view, config), key)
    weight = for_all_bindings(quantize_nearest(view, scales, config.weight_bits), bindings)
    shift = np.zeros(len(view), np.float32)
    if config.bias_correction:
        # A layer used several times has one bias: it takes a mean of what its uses would want.
        means = [task.measurements.input_means[binding.operator] for binding in bindings]
        shifts = [correct_bias(shift, view, weight.dequantize(), mean) for mean in means]
        shift = np.average(shifts, axis=0, weights=_weights_of_bindings(task, bindings))
    return FittedWeight(weight, shift.astype(np.float32), bindings)


def _weights_of_bindings(task: FittingTask, bindings: tuple[WeightBinding, ...]) -> np.ndarray:
    """float64 ``[bindings]``: how much each use of a weight counts, 1 for the one with the smallest inputs.

    What is a little for a use with large inputs would drown one with small ones, so that these count more.
    """
    steps = np.array([task.grids[binding.input].scale if binding.input in task.grids else 1.0 for binding in bindings])
    return np.square(steps.min() / steps)


def fit_on_prefix(
    task: FittingTask, key: KernelKey, bindings: tuple[WeightBinding, ...], prefix: SequentialCalibration
) -> FittedWeight:
    """Quantize a weight from statistics of the quantized prefix."""
    view, config = task.view(key, bindings), task.config(key)
    with threads_for(view.shape[1] * view.shape[2]):
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused as a whole
                sums = prefix.statistics(bindings, _weights_of_bindings(task, bindings))
                statistics = sums.centred()
        except ValueError as error:
            name = layer_name(task.float_file.model, key)
            raise ValueError(f"layer {name!r}: {error}") from error
        # With few samples for each input, directions that no sample showed would be fitted freely.
        scarcity = max(1.0, FEW_POSITIONS * view.shape[1] * view.shape[2] / sums.count)
        damped = statistics.damped(view, config.rounding.damping * scarcity)
        scales = task.storable(_searched_scales(view, config, damped), key)
        weight = _rounded(view, scales, config, statistics, config.rounding.damping * scarcity, task.seed)
        weight = replace(weight, scales=task.storable(weight.scales, key))  # the rounding may have refined them
        weight = for_all_bindings(weight, bindings)
        shift = best_bias_shift(task, key, bindings, weight, statistics)
        return FittedWeight(weight, shift, bindings)


def for_all_bindings(weight: QuantizedWeight, bindings: tuple[WeightBinding, ...]) -> QuantizedWeight:
    """A weight that every use can hold: where one of them turns signs, without the code that has no mirror image."""
    if not any(binding.row_factors is not None and (binding.row_factors < 0.0).any() for binding in bindings):
        return weight
    return replace(weight, codes=np.maximum(weight.codes, -weight_code_limit(weight.bits)))


def best_bias_shift(
    task: FittingTask,
    key: KernelKey,
    bindings: tuple[WeightBinding, ...],
    weight: QuantizedWeight,
    statistics: CentredStatistics,
) -> np.ndarray:
    """float32 ``[O]``: what the best bias for some codes adds to the float bias."""
    if not task.config(key).bias_correction:
        return np.zeros(len(weight.codes), np.float32)
    bias = task.float_file.bias(bindings[0])
    factors = 1.0 if bindings[0].row_factors is None else bindings[0].row_factors
    return (statistics.best_bias(weight.dequantize()) - (0.0 if bias is None else bias / factors)).astype(np.float32)


def _searched_scales(view: np.ndarray, config: QuantizationConfig, statistics: CentredStatistics) -> BlockScales:
    """Scales as the config asks, by output error where it says so."""
    layer_shift = config.scaler == "shift" and isinstance(config.granularity, PerTensor)
    if config.weight_scale not in ("output", "cosine") or layer_shift:
        # WES has one base for the layer and shifts that follow from it: the weight error decides.
        by_weights = "max_abs" if config.weight_scale == "max_abs" else "mse"
        return fit_scales(view, config.replace(weight_scale=by_weights))
    outputs, inputs, _ = view.shape
    return search_scales(
        view,
        statistics.gram,
        block_shape(config.granularity, outputs, inputs),
        config.weight_bits,
        config.scaler if isinstance(config.granularity, PerBlock) else "float",
        cross=statistics.cross,
        objective="cosine" if config.weight_scale == "cosine" else "output_error",
        allowed=config.multipliers,
        thorough=rounding_method(config, view.shape) == "nearest",  # learned codes are as good with any
    )


def _rounded(
    view: np.ndarray,
    scales: BlockScales,
    config: QuantizationConfig,
    statistics: CentredStatistics,
    damping: float,
    seed: int,
) -> QuantizedWeight:
    rounding = config.rounding
    if rounding_method(config, view.shape) == "nearest":
        return quantize_nearest(view, scales, config.weight_bits)
    small = view.shape[1] * view.shape[2] <= MOST_INPUTS_FOR_GAINS and config.weight_bits < 8
    return round_weight(
        view,
        scales,
        config.weight_bits,
        statistics,
        rounding.method,
        _rounding_options(rounding),
        damping=damping,
        # Multiples of float16 scales, say, would be none.
        gains=GAINS if small and has_exact_scales(config) else (),
        refine_scales=rounding.refine_scales,
        seed=seed,
    )


def _rounding_options(rounding: Rounding):
    """Options object of ``tfptq.core`` for a rounding method."""
    rate = {} if rounding.learning_rate is None else {"learning_rate": rounding.learning_rate}
    if rounding.method == "attention":
        return AttentionRoundOptions(tau=rounding.tau, steps=rounding.steps, start=rounding.start, **rate)
    if rounding.method == "adaround":
        return AdaRoundOptions(steps=rounding.steps, **rate)
    return None
