"""Fit the weights of a model: scales, codes and biases, from what calibration measured.

This module decides in which order kernels are fitted, and which way (``fit_kernel``):

* From the weights and the mean inputs alone (scales by max-abs or weight error, nearest rounding): fast.
* From statistics of the quantized prefix, kernel by kernel in execution order, where the config asks for scales by
  output error or for learned rounding, and the statistics tell enough. A kernel that is used several times comes when
  it is first used, with statistics of all its uses.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from tfptq.checkpoint import Checkpoint
from tfptq.core.affine import ActivationGrid
from tfptq.core.bias_correction import make_room_for_bias
from tfptq.core.blocks import QuantizedWeight
from tfptq.fit_kernel import (
    FEW_POSITIONS,
    Fitted,
    FittedWeight,
    FittingTask,
    best_bias_shift,
    fit_on_means,
    fit_on_prefix,
    needs_statistics,
)
from tfptq.tflite.activations import Range
from tfptq.tflite.emit import IntegerPlan
from tfptq.tflite.matching import WeightBinding, WeightKey
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.prefix import QuantizedPrefix
from tfptq.tflite.residual_blocks import Block

#: Most steps of a result that one step of a kernel's products may be. XNNPACK refuses 256.
LARGEST_STEP = 255.0


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


def ranges_for_kernels(model: TFLiteModel, plan: IntegerPlan, fitted: Fitted) -> dict[int, Range]:
    """Wider ranges for results that are too fine for what their kernels add up.

    Where one step of the products (of input and weight) is as much as the whole result, that is lost in the rounding of
    the input: the layer takes the difference of large numbers, or channels differ too much. The file shall load still.

    Args:
        model: float model.
        plan: operators on integers, and the grids of the file.
        fitted: quantized weights.

    Returns:
        Tensor index -> range.
    """
    found, integer = {}, set(plan.operators) if plan.bits == 8 else ()
    for item in fitted.values():
        for place in item.bindings:
            form = item.weight.int8_form()
            if place.operator not in integer or form is None:
                continue
            factors = 1.0 if place.row_factors is None else np.abs(place.row_factors)
            result = model.operators[place.operator].outputs[0]
            low, high = plan.grids[result].real_range
            step = float((form[1] * factors).max()) * plan.grids[place.input].scale
            growth = step / (LARGEST_STEP * plan.grids[result].scale)
            if growth > 1.0:
                found[result] = growth * low, growth * high
    return found


def asks_for_statistics(task: FittingTask, key: WeightKey | int, places: tuple[WeightBinding, ...]) -> bool:
    """Whether the config of a kernel asks for statistics."""
    return needs_statistics(task.config(key), task.view(key, places).shape)


def without_statistics(
    task: FittingTask, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> dict[WeightKey | int, str]:
    """Weights that are fitted without the statistics that their configs ask for, and why.

    Args:
        task: what fitting reads.
        bindings: the uses of kernels to quantize.
        prefix: gives the statistics.
    """
    asking = {key: at for key, at in uses(bindings).items() if asks_for_statistics(task, key, at)}
    reasons = {key: _statistics_obstacle(task, key, at, prefix) for key, at in asking.items()}
    return {key: reason for key, reason in reasons.items() if reason is not None}


def _statistics_obstacle(
    task: FittingTask, key: WeightKey | int, places: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> str | None:
    """Why a kernel cannot have statistics, or None."""
    # Of a part of the samples only, few positions are a worse guide than the means of all samples.
    return prefix.obstacle(places, 0 if task.config(key).statistics_samples is None else FEW_POSITIONS)


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
        return {key: fit_on_means(task, key, places) for key, places in unit.items()}
    if block is not None and len(unit) > 1:
        with prefix.held_before(block):
            return _fit_block(task, unit, block, prefix)
    return _fit_one_by_one(task, unit, prefix)


def _fit_one_by_one(task: FittingTask, unit: Unit, prefix: QuantizedPrefix) -> dict[WeightKey | int, FittedWeight]:
    items = {}
    for key, places in unit.items():
        on_prefix = asks_for_statistics(task, key, places) and _statistics_obstacle(task, key, places, prefix) is None
        items[key] = fit_on_prefix(task, key, places, prefix) if on_prefix else fit_on_means(task, key, places)
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
        items[key] = replace(
            items[key], weight=weight, bias_shift=best_bias_shift(task, key, unit[key], weight, statistics)
        )
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
