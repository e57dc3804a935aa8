"""Fit the weights of a model: scales, codes and biases, from what calibration measured.

This module decides in which order kernels are fitted, and which way (``fit_kernel``):

* From the weights and the mean inputs alone (scales by max-abs or weight error, nearest rounding): fast.
* From statistics of the quantized prefix, kernel by kernel in execution order, where the config asks for scales by
  output error or for learned rounding, and the statistics tell enough. A kernel that is used several times comes when
  it is first used, with statistics of all its uses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
    rounding_method,
)
from tfptq.reconstruct import LearnedKernel, reconstruct_block
from tfptq.tflite.activations import Range
from tfptq.tflite.emit import IntegerPlan
from tfptq.tflite.matching import KernelKey, WeightBinding, is_keras_weight
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.prefix import QuantizedPrefix
from tfptq.tflite.residual_blocks import ResidualBlock

#: Most steps of a result that one step of a kernel's products may be. XNNPACK refuses 256.
LARGEST_STEP = 255.0


def bindings_by_key(bindings: tuple[WeightBinding, ...]) -> dict[KernelKey, tuple[WeightBinding, ...]]:
    """Group the uses of kernels by Keras weight; a kernel that is no Keras weight goes by its tensor index."""
    grouped: dict[KernelKey, tuple[WeightBinding, ...]] = {}
    for binding in bindings:
        grouped[binding.kernel_key] = (*grouped.get(binding.kernel_key, ()), binding)
    return grouped


def with_room_for_biases(
    task: FittingTask, fitted: Mapping[KernelKey, FittedWeight], grids: Mapping[int, ActivationGrid]
) -> Fitted:
    """Enlarge scales under which the int32 bias of some use would overflow.

    Args:
        task: what the weights were fitted for.
        fitted: quantized weights.
        grids: the integer grids of the activations in the file.
    """
    found = {}
    for key, item in fitted.items():
        weight = item.weight
        for binding in item.bindings:
            if binding.input in grids and task.config(key).layout != "native":
                factors = 1.0 if binding.row_factors is None else np.abs(binding.row_factors)
                bias = item.bias_of(task.skeleton, binding) / factors
                weight = make_room_for_bias(weight, bias, grids[binding.input].scale)
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
        for binding in item.bindings:
            form = item.weight.int8_form()
            if binding.operator not in integer or form is None:
                continue
            factors = 1.0 if binding.row_factors is None else np.abs(binding.row_factors)
            result = model.operators[binding.operator].outputs[0]
            low, high = plan.grids[result].real_range
            step = float((form[1] * factors).max()) * plan.grids[binding.input].scale
            growth = step / (LARGEST_STEP * plan.grids[result].scale)
            if growth > 1.0:
                found[result] = growth * low, growth * high
    return found


def asks_for_statistics(task: FittingTask, key: KernelKey, bindings: tuple[WeightBinding, ...]) -> bool:
    """Whether the config of a kernel asks for statistics."""
    return needs_statistics(task.config(key), task.view(key, bindings).shape)


def without_statistics(
    task: FittingTask, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> dict[KernelKey, str]:
    """Weights that are fitted without the statistics that their configs ask for, and why.

    Args:
        task: what fitting reads.
        bindings: the uses of kernels to quantize.
        prefix: gives the statistics.
    """
    reasons = {
        key: _statistics_obstacle(task, key, own, prefix)
        for key, own in bindings_by_key(bindings).items()
        if asks_for_statistics(task, key, own)
    }
    return {key: reason for key, reason in reasons.items() if reason is not None}


def _statistics_obstacle(
    task: FittingTask, key: KernelKey, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> str | None:
    """Why a kernel cannot have statistics, or None."""
    # Of a part of the samples only, few positions are a worse guide than the means of all samples.
    return prefix.obstacle(bindings, 0 if task.config(key).statistics_samples is None else FEW_POSITIONS)


def fit_weights(
    task: FittingTask,
    bindings: tuple[WeightBinding, ...],
    prefix: QuantizedPrefix | None = None,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Fitted:
    """Quantize kernels of a skeleton, in execution order.

    Args:
        task: what fitting reads.
        bindings: the uses of kernels to quantize.
        prefix: needed when a weight needs statistics.
        checkpoint: keeps finished weights, so that a killed run can go on.
        advance: called with the number of weights done.

    Returns:
        Keras weight (or, for a kernel that is no Keras weight, its tensor index) -> fitted weight.

    Raises:
        ValueError: layers that learn their rounding together want different numbers of steps, or learning rates.
    """
    fitted: Fitted = {}
    for group in _weight_groups(task, bindings, prefix):
        items = _stored(checkpoint, group)
        if not items:
            items = _fit_group(task, group, prefix)
            if checkpoint is not None:
                for number, item in enumerate(items.values(), group.first):
                    checkpoint.save(number, item.weight, item.bias_shift)
        elif prefix is not None:
            for item in items.values():
                _put(task, prefix, item)
        fitted |= items
        for _ in items:
            advance(1)
    return fitted


@dataclass(frozen=True, eq=False)
class _WeightGroup:
    """Weights that are finished together.

    Attributes:
        first: number of the first of them among all weights.
        bindings: weight -> its uses, in execution order.
        block: the block whose kernels they are, where some of these learn their rounding together.
        learning: those that do.
    """

    first: int
    bindings: dict[KernelKey, tuple[WeightBinding, ...]]
    block: ResidualBlock | None = None
    learning: tuple[KernelKey, ...] = ()


def _weight_groups(
    task: FittingTask, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix | None
) -> list[_WeightGroup]:
    """All weights, in execution order.

    A block in which kernels learn together is one group, kernels that do not learn included: no cut may be made inside
    of it before its last kernel is finished.
    """
    weights, groups, number = list(bindings_by_key(bindings).items()), [], 0
    blocks = []
    if prefix is not None:
        blocks = [(block, _learning(task, weights, block, prefix)) for block in prefix.blocks()]
    while number < len(weights):
        group = _WeightGroup(number, dict(weights[number : number + 1]))
        for block, learning in blocks:
            if len(learning) > 1 and _begins_in(block, weights[number][1], prefix):
                inside = [item for item in weights[number:] if _begins_in(block, item[1], prefix)]
                group = _WeightGroup(number, dict(inside), block, learning)
        groups.append(group)
        number += len(group.bindings)
    return groups


def _begins_in(block: ResidualBlock, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix) -> bool:
    """Whether the first use of a weight is in a block."""
    return block.start <= prefix.position(bindings[0]) < block.stop


def _learning(
    task: FittingTask,
    weights: Sequence[tuple[KernelKey, tuple[WeightBinding, ...]]],
    block: ResidualBlock,
    prefix: QuantizedPrefix,
) -> tuple[KernelKey, ...]:
    """The weights whose rounding is learned on the output of a block.

    Raises:
        ValueError: they ask for different numbers of steps, or learning rates.
    """
    found = [
        key
        for key, bindings in weights
        if _begins_in(block, bindings, prefix) and _learns_in_block(task, key, bindings, prefix)
    ]
    roundings = {key[0]: task.config(key).rounding for key in found}
    _refuse_different("block_steps", {name: rounding.block_steps for name, rounding in roundings.items()})
    _refuse_different("learning_rate", {name: rounding.block_learning_rate for name, rounding in roundings.items()})
    return tuple(found)


def _refuse_different(field: str, values: Mapping[str, float | None]) -> None:
    """Refuse layers of one block whose configs have different values of a field, by the name of the layer."""
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name!r} {value}" for name, value in values.items())
        raise ValueError(
            f"layers of one block learn their rounding together, and ask for different {field}: {listed}; give "
            "them the same number, or rounding with reconstruction='layer' to those that shall learn alone"
        )


def _learns_in_block(
    task: FittingTask, key: KernelKey, bindings: tuple[WeightBinding, ...], prefix: QuantizedPrefix
) -> bool:
    """Whether a weight is one whose rounding can be learned on the output of a block, and is to be."""
    config = task.config(key)
    return (
        is_keras_weight(key)
        and len(bindings) == 1
        and bindings[0].row_factors is None
        and config.rounding.reconstruction == "block"
        and rounding_method(config, task.view(key, bindings).shape) != "nearest"
        and _statistics_obstacle(task, key, bindings, prefix) is None
    )


def _stored(checkpoint: Checkpoint | None, group: _WeightGroup) -> Fitted:
    """The finished weights of a group, or nothing when one of them is not finished."""
    if checkpoint is None:
        return {}
    stored = [checkpoint.load(group.first + number) for number in range(len(group.bindings))]
    if any(item is None for item in stored):
        return {}
    return {
        key: FittedWeight(*item, bindings) for item, (key, bindings) in zip(stored, group.bindings.items(), strict=True)
    }


def _put(task: FittingTask, prefix: QuantizedPrefix, item: FittedWeight) -> None:
    for binding in item.bindings:
        prefix.replace(binding, item.kernel_of(binding), item.bias_of(task.skeleton, binding))


def _fit_group(task: FittingTask, group: _WeightGroup, prefix: QuantizedPrefix | None) -> Fitted:
    """Fit weights one by one, and then together when they share a block, and put them into the prefix."""
    if prefix is None:
        return {key: fit_on_means(task, key, bindings) for key, bindings in group.bindings.items()}
    if group.block is not None:
        with prefix.held_before(group.block):
            return _fit_block(task, group, prefix)
    return _fit_one_by_one(task, group, prefix)


def _fit_one_by_one(task: FittingTask, group: _WeightGroup, prefix: QuantizedPrefix) -> Fitted:
    items = {}
    for key, bindings in group.bindings.items():
        on_prefix = (
            asks_for_statistics(task, key, bindings) and _statistics_obstacle(task, key, bindings, prefix) is None
        )
        items[key] = fit_on_prefix(task, key, bindings, prefix) if on_prefix else fit_on_means(task, key, bindings)
        _put(task, prefix, items[key])
    return items


def _fit_block(task: FittingTask, group: _WeightGroup, prefix: QuantizedPrefix) -> Fitted:
    """Fit the kernels of a block one by one, learn their rounding together, and correct the biases again."""
    samples = prefix.block_samples(group.block)
    items = _fit_one_by_one(task, group, prefix)
    learning = {key: items[key] for key in group.learning}
    for key, weight in _reconstructed(task, learning, group.block, prefix, samples).items():
        # With other codes the best bias is another one, and so are the inputs of the next kernel.
        bindings = group.bindings[key]
        shift = best_bias_shift(task, key, bindings, weight, prefix.statistics(bindings).centred())
        items[key] = replace(items[key], weight=weight, bias_shift=shift)
        _put(task, prefix, items[key])
    return items


def _reconstructed(
    task: FittingTask,
    items: Fitted,
    block: ResidualBlock,
    prefix: QuantizedPrefix,
    samples: tuple[np.ndarray, np.ndarray],
) -> dict[KernelKey, QuantizedWeight]:
    kernels = []
    for key, item in items.items():
        (binding,) = item.bindings
        ratio = task.view(key, item.bindings) / item.weight.scale_per_weight
        tau = task.config(key).rounding.tau
        kernels.append(LearnedKernel(prefix.position(binding), binding.view, ratio, item.weight, tau))
    rounding = task.config(next(iter(items))).rounding  # what is read here is the same for all of them
    options = {"steps": rounding.block_steps, "seed": task.seed}
    if rounding.block_learning_rate is not None:
        options["learning_rate"] = rounding.block_learning_rate
    weights = reconstruct_block(prefix.quantized, block, kernels, *samples, **options)
    return dict(zip(items, weights, strict=True))
