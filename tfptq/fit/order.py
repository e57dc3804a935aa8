"""Fit the weights of a model: scales, codes and biases, from what calibration measured.

This module decides in which order kernels are fitted, and which way (``fit_kernel``):

* From the weights and the mean inputs alone (scales by max-abs or weight error, nearest rounding): fast.
* From statistics of the quantized prefix, kernel by kernel in execution order, where the config asks for scales by
  output error or for learned rounding, and the statistics tell enough. A kernel that is used several times comes when
  it is first used, with statistics of all its uses.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tfptq.core.affine import ActivationGrid
from tfptq.core.bias_correction import bias_code_limits, make_room_for_bias
from tfptq.fit.checkpoint import Checkpoint
from tfptq.fit.kernel import (
    FEW_POSITIONS,
    Fitted,
    FittedWeight,
    FittingTask,
    fit_on_means,
    fit_on_prefix,
    has_exact_scales,
    needs_statistics,
)
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.matching import KernelKey, WeightBinding
from tfptq.lowering.emit import IntegerPlan
from tfptq.lowering.grids import Range
from tfptq.tflite.model import TFLiteModel

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
    """Enlarge scales under which the integer bias of some use would overflow.

    Args:
        task: what the weights were fitted for.
        fitted: quantized weights.
        grids: the integer grids of the activations in the file.
    """
    found = {}
    for key, item in fitted.items():
        weight = item.weight
        for binding in item.bindings:
            if binding.input in grids and has_exact_scales(task.config(key)):
                factors = 1.0 if binding.row_factors is None else np.abs(binding.row_factors)
                bias = item.bias_of(task.float_file, binding) / factors
                weight = make_room_for_bias(weight, bias, grids[binding.input].scale, _limits(binding, bias, grids))
        found[key] = item if weight is item.weight else replace(item, weight=weight)
    return found


def _limits(binding: WeightBinding, bias: np.ndarray, grids: Mapping[int, ActivationGrid]) -> np.ndarray:
    """Largest bias codes of one use, int32 where its operator computes in float."""
    if binding.output not in grids:
        return bias_code_limits(bias, 8, 1.0)
    return bias_code_limits(bias, grids[binding.input].bits, grids[binding.output].scale)


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
    task: FittingTask, bindings: tuple[WeightBinding, ...], prefix: SequentialCalibration
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
    task: FittingTask, key: KernelKey, bindings: tuple[WeightBinding, ...], prefix: SequentialCalibration
) -> str | None:
    """Why a kernel cannot have statistics, or None."""
    # Of a part of the samples only, few positions are a worse guide than the means of all samples.
    return prefix.obstacle(bindings, 0 if task.config(key).statistics_samples is None else FEW_POSITIONS)


def fit_weights(
    task: FittingTask,
    bindings: tuple[WeightBinding, ...],
    prefix: SequentialCalibration | None = None,
    checkpoint: Checkpoint | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Fitted:
    """Quantize kernels of a float file, in execution order.

    Args:
        task: what fitting reads.
        bindings: the uses of kernels to quantize.
        prefix: needed when a weight needs statistics.
        checkpoint: keeps finished weights, so that a killed run can go on.
        advance: called with the number of weights done.

    Returns:
        Keras weight (or, for a kernel that is no Keras weight, its tensor index) -> fitted weight.
    """
    fitted: Fitted = {}
    for number, (key, own) in enumerate(bindings_by_key(bindings).items()):
        stored = None if checkpoint is None else checkpoint.load(number)
        if stored is not None:
            item = FittedWeight(*stored, own)
        elif (
            prefix is not None
            and asks_for_statistics(task, key, own)
            and _statistics_obstacle(task, key, own, prefix) is None
        ):
            item = fit_on_prefix(task, key, own, prefix)
        else:
            item = fit_on_means(task, key, own)
        if stored is None and checkpoint is not None:
            checkpoint.save(number, item.weight, item.bias_shift)
        if prefix is not None:
            for binding in own:
                prefix.replace(binding, item.kernel_of(binding), item.bias_of(task.float_file, binding))
        fitted[key] = item
        advance(1)
    return fitted
