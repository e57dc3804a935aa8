"""Fit the weights of a model: scales, codes and biases, from what calibration measured.

The mathematics is in ``tfptq.core``; this module decides in which order it is applied to the weights of a model, and
what each weight is given. There are two ways:

* From the weights and the mean inputs alone (scales by max-abs or weight error, nearest rounding): fast.
* From statistics of the quantized prefix, kernel by kernel in execution order, where the config asks for scales by
  output error or for learned rounding. The bias then takes out what all kernels before have added as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.checkpoint import Checkpoint
from tfptq.config import PerBlock, PerChannel, PerTensor, QuantizationConfig, Rounding
from tfptq.core.affine import ActivationGrid
from tfptq.core.bias_correction import correct_bias, limit_scales_for_bias
from tfptq.core.blocks import BlockScales, QuantizedWeight, block_shape, quantize_nearest
from tfptq.core.rounding import round_weight
from tfptq.core.scale_search import search_scales
from tfptq.core.statistics import CentredStatistics
from tfptq.core.weight_scales import fit_scales
from tfptq.tflite.calibrate import Measurements
from tfptq.tflite.layouts.constants import half_scales
from tfptq.tflite.matching import WeightBinding, WeightKey
from tfptq.tflite.prefix import QuantizedPrefix
from tfptq.tflite.skeleton import Skeleton

#: What a kernel gets that is not the weight of any Keras layer (the converter made or changed it).
UNMATCHED_CONFIG = QuantizationConfig(PerChannel())


@dataclass(frozen=True, eq=False)
class FittedWeight:
    """A quantized weight and the correction of its layer's bias.

    Attributes:
        weight: codes and scales.
        bias_shift: float32 ``[O]`` to add to the float bias; zeros without bias correction.
        bindings: the uses of the weight in the skeleton.
    """

    weight: QuantizedWeight
    bias_shift: np.ndarray
    bindings: tuple[WeightBinding, ...]

    def bias_of(self, skeleton: Skeleton, binding: WeightBinding) -> np.ndarray:
        """float32 ``[O]`` corrected bias of one use; zeros and the correction where it had none."""
        bias = skeleton.bias(binding)
        shift = self.bias_shift if binding.row_factors is None else self.bias_shift * binding.row_factors
        return (shift if bias is None else bias + shift).astype(np.float32)

    def kernel_of(self, binding: WeightBinding) -> np.ndarray:
        """float32 ``[O, I, T]`` dequantized kernel of one use."""
        kernel = self.weight.dequantize()
        return kernel if binding.row_factors is None else kernel * binding.row_factors[:, None, None]


@dataclass(frozen=True, eq=False)
class FittingTask:
    """What fitting reads.

    Attributes:
        skeleton: float model.
        weights: Keras weights as canonical views ``[O, I, T]``.
        measurements: what calibration measured.
        grids: integer grids of the activations.
        config_of: config of the layer of a Keras weight.
        seed: seed of everything random.
    """

    skeleton: Skeleton
    weights: Mapping[WeightKey, np.ndarray]
    measurements: Measurements
    grids: Mapping[int, ActivationGrid]
    config_of: Callable[[WeightKey], QuantizationConfig]
    seed: int

    def view(self, key: WeightKey | int, places: tuple[WeightBinding, ...]) -> np.ndarray:
        """Float ``[O, I, T]`` of a weight."""
        return self.weights[key] if isinstance(key, tuple) else self.skeleton.kernel(places[0])

    def config(self, key: WeightKey | int) -> QuantizationConfig:
        """Config of a weight."""
        return self.config_of(key) if isinstance(key, tuple) else UNMATCHED_CONFIG

    def guarded(self, scales: BlockScales, key: WeightKey | int, places: tuple[WeightBinding, ...]) -> BlockScales:
        """Scales that the file can hold, and under which the int32 bias of no use overflows."""
        if self.config(key).layout == "native":
            return half_scales(scales)
        for place in places:
            bias = self.skeleton.bias(place)
            if bias is not None and place.input in self.grids:
                factors = 1.0 if place.row_factors is None else np.abs(place.row_factors)
                scales = limit_scales_for_bias(scales, bias / factors, self.grids[place.input].scale)
        return scales


def uses(bindings: tuple[WeightBinding, ...]) -> dict[WeightKey | int, tuple[WeightBinding, ...]]:
    """Group the uses of kernels by Keras weight; a kernel that is nobody's goes by its tensor index."""
    grouped: dict[WeightKey | int, tuple[WeightBinding, ...]] = {}
    for binding in bindings:
        key = binding.kernel if binding.key is None else binding.key
        grouped[key] = (*grouped.get(key, ()), binding)
    return grouped


def needs_statistics(config: QuantizationConfig) -> bool:
    """Whether a layer's config asks for statistics of its inputs and outputs."""
    return config.rounding.method != "nearest" or config.weight_scale in ("output", "cosine")


def fit_weights(
    task: FittingTask,
    bindings: tuple[WeightBinding, ...],
    prefix: QuantizedPrefix | None = None,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[WeightKey | int, FittedWeight]:
    """Quantize kernels of a skeleton, in execution order.

    Args:
        task: what fitting reads.
        bindings: the uses of kernels to quantize.
        prefix: needed when a layer's config needs statistics; then all layers are fitted on statistics.
        checkpoint: keeps finished weights, so that a killed run can go on.
        advance: called with the number of weights done.

    Returns:
        Keras weight (or, for a kernel that is nobody's, its tensor index) -> fitted weight.
    """
    fitted = {}
    for number, (key, places) in enumerate(uses(bindings).items()):
        stored = checkpoint.load(number) if checkpoint else None
        if stored is not None:
            item = FittedWeight(*stored, places)
        else:
            item = _fit_on_means(task, key, places) if prefix is None else _fit_on_prefix(task, key, places, prefix)
            if checkpoint:
                checkpoint.save(number, item.weight, item.bias_shift)
        if prefix is not None:
            for place in places:
                prefix.replace(place, item.kernel_of(place), item.bias_of(task.skeleton, place))
        fitted[key] = item
        advance(1)
    return fitted


def _fit_on_means(task: FittingTask, key: WeightKey | int, places: tuple[WeightBinding, ...]) -> FittedWeight:
    """Quantize a weight from its values and its mean inputs."""
    view, config = task.view(key, places), task.config(key)
    scales = task.guarded(fit_scales(view, config), key, places)
    weight = quantize_nearest(view, scales, config.weight_bits)
    shift = np.zeros(len(view), np.float32)
    if config.bias_correction:
        # A layer used several times has one bias: it takes the mean of what each use would want.
        means = [task.measurements.input_means[place.operator] for place in places]
        shift = np.mean([correct_bias(shift, view, weight.dequantize(), mean) for mean in means], axis=0)
    return FittedWeight(weight, shift.astype(np.float32), places)


def _fit_on_prefix(
    task: FittingTask, key: WeightKey | int, places: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> FittedWeight:
    """Quantize a weight from statistics of the quantized prefix."""
    view, config = task.view(key, places), task.config(key)
    statistics = prefix.statistics(places).centred()
    scales = task.guarded(_searched_scales(view, config, statistics), key, places)
    weight = _rounded(view, scales, config, statistics, task.seed)
    shift = np.zeros(len(view), np.float32)
    if config.bias_correction:
        bias = task.skeleton.bias(places[0])
        factors = 1.0 if places[0].row_factors is None else places[0].row_factors
        shift = statistics.best_bias(weight.dequantize()) - (0.0 if bias is None else bias / factors)
    return FittedWeight(weight, shift.astype(np.float32), places)


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
    )


def _rounded(
    view: np.ndarray, scales: BlockScales, config: QuantizationConfig, statistics: CentredStatistics, seed: int
) -> QuantizedWeight:
    rounding = config.rounding
    if rounding.method == "nearest":
        return quantize_nearest(view, scales, config.weight_bits)
    return round_weight(
        view,
        scales,
        config.weight_bits,
        statistics,
        rounding.method,
        _rounding_options(rounding),
        damping=rounding.damping,
        refine_scales=rounding.refine_scales,
        seed=seed,
    )


def _rounding_options(rounding: Rounding):
    """Options object of ``tfptq.core`` for a rounding method."""
    rate = {} if rounding.learning_rate is None else {"learning_rate": rounding.learning_rate}
    if rounding.method == "attention":
        from tfptq.core.attention_round import AttentionRoundOptions

        return AttentionRoundOptions(tau=rounding.tau, steps=rounding.steps, start=rounding.start, **rate)
    if rounding.method == "adaround":
        from tfptq.core.adaround import AdaRoundOptions

        return AdaRoundOptions(steps=rounding.steps, **rate)
    return None
