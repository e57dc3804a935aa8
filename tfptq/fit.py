"""Fit the weights of a model: scales, codes and biases, from what calibration measured.

The mathematics is in ``tfptq.core``; this module decides in which order it is applied to the weights of a model, and
what each weight is given. There are two ways:

* From the weights and the mean inputs alone (scales by max-abs or weight error, nearest rounding): fast.
* From statistics of the quantized prefix, kernel by kernel in execution order, where the config asks for scales by
  output error or for learned rounding. The bias then takes out what all kernels before have added as well.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tfptq.checkpoint import Checkpoint
from tfptq.config import PerBlock, PerChannel, PerTensor, QuantizationConfig, Rounding
from tfptq.core.affine import ActivationGrid, weight_code_limit
from tfptq.core.bias_correction import correct_bias, make_room_for_bias
from tfptq.core.blocks import BlockScales, QuantizedWeight, block_shape, quantize_nearest
from tfptq.core.products import threads_for
from tfptq.core.rounding import round_weight
from tfptq.core.scale_search import search_scales
from tfptq.core.statistics import CentredStatistics
from tfptq.core.weight_scales import fit_scales
from tfptq.tflite.blocks import Block
from tfptq.tflite.calibrate import Measurements
from tfptq.tflite.layouts.constants import half_scales
from tfptq.tflite.matching import WeightBinding, WeightKey
from tfptq.tflite.prefix import QuantizedPrefix
from tfptq.tflite.skeleton import Skeleton

#: What a kernel gets that is not the weight of any Keras layer (the converter made or changed it).
UNMATCHED_CONFIG = QuantizationConfig(PerChannel())


#: Multiples of the scales that are tried together with the rounding below 8 bits, where it pays: in small kernels.
GAINS = tuple(np.linspace(0.7, 1.25, 12))
MOST_INPUTS_FOR_GAINS = 200
#: With fewer positions than this for each input of a kernel, the pull towards the float weights grows.
FEW_POSITIONS = 8


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

    def storable(self, scales: BlockScales, key: WeightKey | int) -> BlockScales:
        """Scales of a weight that the file can hold."""
        return half_scales(scales) if self.config(key).layout == "native" else scales


def uses(bindings: tuple[WeightBinding, ...]) -> dict[WeightKey | int, tuple[WeightBinding, ...]]:
    """Group the uses of kernels by Keras weight; a kernel that is nobody's goes by its tensor index."""
    grouped: dict[WeightKey | int, tuple[WeightBinding, ...]] = {}
    for binding in bindings:
        key = binding.kernel if binding.key is None else binding.key
        grouped[key] = (*grouped.get(key, ()), binding)
    return grouped


def with_room_for_biases(
    task: FittingTask, fitted: Mapping[WeightKey | int, FittedWeight], grids: Mapping[int, ActivationGrid]
) -> dict[WeightKey | int, FittedWeight]:
    """Enlarge scales under which the int32 bias of some use would overflow.

    Args:
        task: what the weights were fitted for.
        fitted: quantized weights.
        grids: the integer grids of the activations in the file.
    """
    found = {}
    for key, item in fitted.items():
        weight = item.weight
        for place in item.bindings:
            if place.input in grids and task.config(key).layout != "native":
                factors = 1.0 if place.row_factors is None else np.abs(place.row_factors)
                bias = item.bias_of(task.skeleton, place) / factors
                weight = make_room_for_bias(weight, bias, grids[place.input].scale)
        found[key] = item if weight is item.weight else replace(item, weight=weight)
    return found


def needs_statistics(config: QuantizationConfig, view_shape: tuple[int, int, int]) -> bool:
    """Whether a weight is fitted on statistics of its inputs and outputs.

    Args:
        config: config of its layer.
        view_shape: ``(O, I, T)``.
    """
    if config.weight_scale in ("output", "cosine"):
        return True
    limit = config.rounding.most_inputs
    return config.rounding.method != "nearest" and (limit is None or view_shape[1] * view_shape[2] <= limit)


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
        prefix: needed when a weight needs statistics.
        checkpoint: keeps finished weights, so that a killed run can go on.
        advance: called with the number of weights done.

    Returns:
        Keras weight (or, for a kernel that is nobody's, its tensor index) -> fitted weight.
    """
    fitted: dict[WeightKey | int, FittedWeight] = {}
    for numbers, unit, block in _units(task, bindings, prefix):
        items = _stored(checkpoint, numbers, unit) or _fit_unit(task, unit, block, prefix)
        for number, (key, item) in zip(numbers, items.items(), strict=True):
            if checkpoint:
                checkpoint.save(number, item.weight, item.bias_shift)
            if prefix is not None:
                _put(task, prefix, item)
            fitted[key] = item
            advance(1)
    return fitted


Unit = dict[WeightKey | int, tuple[WeightBinding, ...]]


def _units(
    task: FittingTask, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix | None
) -> Iterator[tuple[list[int], Unit, Block | None]]:
    """Numbers and uses of the weights that are fitted together, in execution order, and their block if any."""
    block_of: dict[int, Block] = {}
    for block in prefix.blocks() if prefix is not None else ():
        block_of.update({place.operator: block for place in block.places if _learns_blocks(task, place)})
    numbers, unit, current = [], {}, None
    for number, (key, places) in enumerate(uses(bindings).items()):
        block = block_of.get(places[0].operator) if len(places) == 1 else None
        if unit and (block is None or block is not current):
            yield numbers, unit, current
            numbers, unit = [], {}
        numbers, unit, current = [*numbers, number], {**unit, key: places}, block
    if unit:
        yield numbers, unit, current


def _learns_blocks(task: FittingTask, place: WeightBinding) -> bool:
    if place.key is None or place.row_factors is not None:
        return False
    rounding = task.config(place.key).rounding
    return rounding.method != "nearest" and rounding.reconstruction == "block" and rounding.most_inputs is None


def _stored(checkpoint: Checkpoint | None, numbers: list[int], unit: Unit) -> dict[WeightKey | int, FittedWeight]:
    """The finished weights of a unit, or nothing when one of them is not finished."""
    stored = [checkpoint.load(number) for number in numbers] if checkpoint else [None]
    if any(item is None for item in stored):
        return {}
    return {key: FittedWeight(*item, places) for item, (key, places) in zip(stored, unit.items(), strict=True)}


def _put(task: FittingTask, prefix: QuantizedPrefix, item: FittedWeight) -> None:
    for place in item.bindings:
        prefix.replace(place, item.kernel_of(place), item.bias_of(task.skeleton, place))


def _fit_unit(
    task: FittingTask, unit: Unit, block: Block | None, prefix: QuantizedPrefix | None
) -> dict[WeightKey | int, FittedWeight]:
    """Fit weights one by one, and then together when they share a block."""
    if prefix is None:
        return {key: _fit_on_means(task, key, places) for key, places in unit.items()}
    if block is not None and len(unit) > 1:
        with prefix.held_before(block):
            return _fit_block(task, unit, block, prefix)
    return _fit_one_by_one(task, unit, prefix)


def _fit_one_by_one(task: FittingTask, unit: Unit, prefix: QuantizedPrefix) -> dict[WeightKey | int, FittedWeight]:
    items = {}
    for key, places in unit.items():
        # Uses of a shared kernel come one after the other, and no single prefix is quantized for all of them.
        if len(places) == 1 and needs_statistics(task.config(key), task.view(key, places).shape):
            items[key] = _fit_on_prefix(task, key, places, prefix)
        else:
            items[key] = _fit_on_means(task, key, places)
        _put(task, prefix, items[key])
    return items


def _fit_block(
    task: FittingTask, unit: Unit, block: Block, prefix: QuantizedPrefix
) -> dict[WeightKey | int, FittedWeight]:
    """Fit the kernels of a block one by one, learn their rounding together, and correct the biases again."""
    samples = prefix.block_samples(block)
    items = _fit_one_by_one(task, unit, prefix)
    for key, weight in _reconstructed(task, items, block, prefix, samples).items():
        # With other codes the best bias is another one, and so are the inputs of the next kernel.
        statistics = prefix.statistics(unit[key]).centred()
        items[key] = FittedWeight(weight, _bias_shift(task, key, unit[key], weight, statistics), unit[key])
        _put(task, prefix, items[key])
    return items


def _reconstructed(
    task: FittingTask,
    items: dict[WeightKey | int, FittedWeight],
    block: Block,
    prefix: QuantizedPrefix,
    samples: tuple[np.ndarray, np.ndarray],
) -> dict[WeightKey | int, QuantizedWeight]:
    from tfptq.reconstruct import LearnedKernel, reconstruct_block  # imports TensorFlow

    kernels = []
    for key, item in items.items():
        view = task.view(key, item.bindings)
        kernels.append(LearnedKernel(item.bindings[0], view / item.weight.scale_per_weight, item.weight))
    rounding = task.config(next(iter(items))).rounding
    weights = reconstruct_block(
        prefix.quantized,
        block,
        kernels,
        *samples,
        steps=rounding.block_steps,
        tau=rounding.tau,
        seed=task.seed,
    )
    return dict(zip(items, weights, strict=True))


def _fit_on_means(task: FittingTask, key: WeightKey | int, places: tuple[WeightBinding, ...]) -> FittedWeight:
    """Quantize a weight from its values and its mean inputs."""
    view, config = task.view(key, places), task.config(key)
    scales = task.storable(fit_scales(view, config), key)
    weight = _for_all_uses(quantize_nearest(view, scales, config.weight_bits), places)
    shift = np.zeros(len(view), np.float32)
    if config.bias_correction:
        # A layer used several times has one bias: it takes a mean of what its uses would want. What is a little for
        # a use with large inputs would drown one with small ones, so that these count more.
        means = [task.measurements.input_means[place.operator] for place in places]
        shifts = [correct_bias(shift, view, weight.dequantize(), mean) for mean in means]
        steps = [task.grids[place.input].scale if place.input in task.grids else 1.0 for place in places]
        shift = np.average(shifts, axis=0, weights=np.square(min(steps) / np.asarray(steps)))
    return FittedWeight(weight, shift.astype(np.float32), places)


def _fit_on_prefix(
    task: FittingTask, key: WeightKey | int, places: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> FittedWeight:
    """Quantize a weight from statistics of the quantized prefix."""
    view, config = task.view(key, places), task.config(key)
    sums = prefix.statistics(places)
    statistics = sums.centred()
    # With few samples for each input, directions that no sample showed would be fitted freely.
    scarcity = max(1.0, FEW_POSITIONS * view.shape[1] * view.shape[2] / sums.count)
    if scarcity > 1.0 and config.statistics_samples is not None:
        # Of a part of the samples only: the means of all of them are the better guide then.
        return _fit_on_means(task, key, places)
    with threads_for(view.shape[1] * view.shape[2]):
        damped = statistics.damped(view, config.rounding.damping * scarcity)
        scales = task.storable(_searched_scales(view, config, damped), key)
        weight = _rounded(view, scales, config, statistics, config.rounding.damping * scarcity, task.seed)
        weight = _for_all_uses(weight, places)
        return FittedWeight(weight, _bias_shift(task, key, places, weight, statistics), places)


def _for_all_uses(weight: QuantizedWeight, places: tuple[WeightBinding, ...]) -> QuantizedWeight:
    """Without the code that has no mirror image, where a use with a negative factor will flip the signs of codes."""
    if not any(place.row_factors is not None and (place.row_factors < 0.0).any() for place in places):
        return weight
    return replace(weight, codes=np.maximum(weight.codes, -weight_code_limit(weight.bits)))


def _bias_shift(
    task: FittingTask,
    key: WeightKey | int,
    places: tuple[WeightBinding, ...],
    weight: QuantizedWeight,
    statistics: CentredStatistics,
) -> np.ndarray:
    """float32 ``[O]``: what the best bias for some codes adds to the float bias."""
    if not task.config(key).bias_correction:
        return np.zeros(len(weight.codes), np.float32)
    bias = task.skeleton.bias(places[0])
    factors = 1.0 if places[0].row_factors is None else places[0].row_factors
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
    if rounding.method == "nearest" or view.shape[1] * view.shape[2] > (rounding.most_inputs or view.size):
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
        # The layout "native" stores float16 scales, which multiples would not be.
        gains=GAINS if small and config.layout != "native" else (),
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
