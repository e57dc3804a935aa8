"""Fit the kernels of a float file: scales, codes and biases.

This module decides in which order kernels are fitted, and which way (``fit.kernel``):

* From the weights and the mean inputs alone (scales by max-abs or weight error, nearest rounding): fast.
* From statistics of sequential calibration, kernel by kernel in execution order, where the config asks for scales by
  output error or for learned rounding, and the statistics tell enough. A kernel that is used several times comes when
  it is first used, with statistics of all its uses.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from tfptq.core.affine import ActivationGrid
from tfptq.core.bias_correction import bias_code_limits, make_room_for_bias
from tfptq.fit.checkpoint import Checkpoint
from tfptq.fit.kernel import (
    FEW_POSITIONS,
    asks_for_statistics,
    fit_from_means,
    fit_from_statistics,
    rounding_method,
    weights_of_uses,
)
from tfptq.fit.measurements import Measurements
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel

#: Most steps of a result that one step of a kernel's products may be. XNNPACK refuses 256.
LARGEST_STEP = 255.0


def plan_fit(kernel: Kernel, plan: KernelPlan, sequential: SequentialCalibration | None) -> KernelPlan:
    """Decide how a kernel is rounded, and whether on statistics; ``sequential`` is None if no kernel asks for any."""
    if sequential is None or not asks_for_statistics(plan.config, kernel.shape):
        return plan
    # Of a part of the samples only, few positions are a worse guide than the means of all samples.
    fewest = 0 if plan.config.statistics_samples is None else FEW_POSITIONS
    reason = sequential.obstacle(kernel, fewest)
    if reason is not None:
        return replace(plan, reason=reason)
    return replace(plan, from_statistics=True, rounding=rounding_method(plan.config, kernel.shape))


def fit_kernels(
    kernels: Iterable[tuple[Kernel, KernelPlan]],
    measurements: Measurements,
    grids: Mapping[int, ActivationGrid],
    sequential: SequentialCalibration | None = None,
    checkpoint: Checkpoint | None = None,
    *,
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[QuantizedKernel, ...]:
    """Quantize kernels of a float file, each by its plan, in execution order.

    Args:
        grids: tensor index -> grid of the activations.
        sequential: needed when a plan wants statistics.
        checkpoint: keeps finished weights, so that a killed run can go on.
        advance: called with the number of kernels done.
    """
    fitted = []
    for number, (kernel, plan) in enumerate(kernels):
        stored = None if checkpoint is None else checkpoint.load(number, kernel.shape)
        if stored is not None:
            item = QuantizedKernel.of(kernel, plan, *stored)
        elif sequential is not None and plan.from_statistics:
            sums = sequential.statistics(kernel, weights_of_uses(kernel, grids))
            item = fit_from_statistics(kernel, plan, sums)
        else:
            means = [measurements.mean_input(use) for use in kernel.uses]
            item = fit_from_means(kernel, plan, means, weights_of_uses(kernel, grids))
        if stored is None and checkpoint is not None:
            checkpoint.save(number, item.weight, item.bias_shift)
        if sequential is not None:
            sequential.replace(item)
        fitted.append(item)
        advance(1)
    return tuple(fitted)


def with_bias_headroom(kernel: QuantizedKernel, grids: Mapping[int, ActivationGrid]) -> QuantizedKernel:
    """Enlarge scales under which the integer bias of some use would overflow.

    Args:
        kernel: fitted kernel.
        grids: tensor index -> grid of the activations in the file.
    """
    weight = kernel.weight
    if not kernel.plan.config.on_integers:  # the bias is float
        return kernel
    for use in kernel.uses:
        if use.input in grids and kernel.layout.exact_scales:
            bias = use.shifted_bias(kernel.bias_shift) / use.magnitudes
            weight = make_room_for_bias(weight, bias, grids[use.input].scale, _bias_limits(use, bias, grids))
    return kernel if weight is kernel.weight else replace(kernel, weight=weight)


def _bias_limits(use: KernelUse, bias: np.ndarray, grids: Mapping[int, ActivationGrid]) -> np.ndarray:
    """Largest bias codes ``[O]`` of one use, int32 where its operator computes in float."""
    if use.output not in grids:
        return bias_code_limits(bias, 8, 1.0)
    return bias_code_limits(bias, grids[use.input].bits, grids[use.output].scale)


def ranges_for_kernels(kernels: Iterable[QuantizedKernel], plan: IntegerPlan) -> dict[int, Range]:
    """Wider ranges (by tensor index) for results that are too fine for what their kernels add up.

    Where one step of the products (of input and weight) is as much as the whole result, that is lost in the rounding of
    the input: the layer takes the difference of large numbers, or channels differ too much. The file shall load still.
    """
    found, integer = {}, {at for at in plan.operators if plan.bits_of(at) == 8}
    for kernel in kernels:
        form, grids = kernel.weight.int8_form(), plan.grids_for(use.operator for use in kernel.uses)
        for use in kernel.uses:
            if use.operator not in integer or form is None or not use.alone:
                continue
            low, high = plan.grids[use.output].real_range
            step = float((form[1] * use.magnitudes).max()) * grids[use.input].scale
            growth = step / (LARGEST_STEP * plan.grids[use.output].scale)
            if growth > 1.0:
                found[use.output] = growth * low, growth * high
    return found
