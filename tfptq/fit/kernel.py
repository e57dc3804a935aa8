"""Fit one kernel: scales, codes and the correction of its bias.

From the weights and the mean inputs alone (``fit_from_means``), or on statistics of sequential calibration
(``fit_from_statistics``), where the bias then also takes out what all kernels before have added. The mathematics is in
``tfptq.core``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfptq.config import PerTensor, QuantizationConfig
from tfptq.core.affine import ActivationGrid, weight_code_limit
from tfptq.core.bias_correction import correct_bias
from tfptq.core.blocks import BlockScales, QuantizedWeight, quantize_nearest
from tfptq.core.products import threads_for
from tfptq.core.rounding import round_weight
from tfptq.core.scale_search import search_scales
from tfptq.core.statistics import CentredStatistics, LayerStatistics
from tfptq.float_file.kernel import Kernel
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel

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


def rounding_method(config: QuantizationConfig, shape: tuple[int, int, int]) -> str:
    """Method that a config wants for a weight of a shape ``(O, I, T)``: nearest above ``rounding.most_inputs``."""
    limit = config.rounding.most_inputs
    return config.rounding.method if limit is None or shape[1] * shape[2] <= limit else "nearest"


def asks_for_statistics(config: QuantizationConfig, shape: tuple[int, int, int]) -> bool:
    """Whether a weight of a shape ``(O, I, T)`` is to be fitted on statistics of its inputs and outputs."""
    return config.weight_scale == "output" or rounding_method(config, shape) != "nearest"


def weights_of_uses(kernel: Kernel, grids: Mapping[int, ActivationGrid]) -> np.ndarray:
    """float64 ``[uses]``: how much each use of a kernel counts, 1 for the one with the smallest inputs.

    What is a little for a use with large inputs would drown one with small ones, so that these count more.
    """
    steps = np.array([grids[use.input].scale if use.input in grids else 1.0 for use in kernel.uses])
    return np.square(steps.min() / steps)


def fit_from_means(
    kernel: Kernel, plan: KernelPlan, mean_inputs: Sequence[np.ndarray], weights: np.ndarray
) -> QuantizedKernel:
    """Quantize a kernel from its values and its mean inputs.

    Args:
        mean_inputs: for each use, the mean input under each weight, broadcastable to ``[O, I, T]``.
        weights: ``[uses]``, how much each use counts.
    """
    scales = _storable(plan.config.scales_of(kernel.values, plan.symmetric_codes), kernel, plan)
    weight = mirrored(quantize_nearest(kernel.values, scales, plan.config.weight_bits), kernel, plan)
    shift = np.zeros(len(kernel.values), np.float32)
    if plan.config.bias_correction:
        # A kernel used several times has one bias: it takes a mean of what its uses would want.
        shifts = [correct_bias(shift, kernel.values, weight.dequantize(), mean) for mean in mean_inputs]
        shift = np.average(shifts, axis=0, weights=weights)
    return QuantizedKernel.of(kernel, plan, weight, shift.astype(np.float32))


def fit_from_statistics(kernel: Kernel, plan: KernelPlan, sums: LayerStatistics) -> QuantizedKernel:
    """Quantize a kernel from statistics of its inputs and outputs.

    Raises:
        ValueError: the statistics are not finite, or the layout cannot hold the scales; the layer is named.
    """
    values, config = kernel.values, plan.config
    with threads_for(values.shape[1] * values.shape[2]):
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused as a whole
                statistics = sums.centred()
        except ValueError as error:
            raise ValueError(f"layer {kernel.id.owner!r}: {error}") from error
        # With few samples for each input, directions that no sample showed would be fitted freely.
        scarcity = max(1.0, FEW_POSITIONS * values.shape[1] * values.shape[2] / sums.count)
        damping = config.rounding.damping * scarcity
        scales = _storable(_searched_scales(values, plan, statistics.damped(values, damping)), kernel, plan)
        weight = mirrored(_rounded(values, scales, plan, statistics, damping), kernel, plan)
        return QuantizedKernel.of(kernel, plan, weight, _best_bias_shift(kernel, plan, weight, statistics))


def _storable(scales: BlockScales, kernel: Kernel, plan: KernelPlan) -> BlockScales:
    """Scales that the layout can hold."""
    try:
        return plan.layouts.candidates[0].stored_scales(scales)
    except ValueError as error:
        raise ValueError(f"layer {kernel.id.owner!r}: {error}") from error


def mirrored(weight: QuantizedWeight, kernel: Kernel, plan: KernelPlan) -> QuantizedWeight:
    """A weight without the code that has no mirror image, where a use flips signs, or where kernels misread it."""
    if not (kernel.flips_signs or plan.symmetric_codes):
        return weight
    return replace(weight, codes=np.maximum(weight.codes, -weight_code_limit(weight.bits)))


def _best_bias_shift(
    kernel: Kernel, plan: KernelPlan, weight: QuantizedWeight, statistics: CentredStatistics
) -> np.ndarray:
    """float32 ``[O]``: what the best bias for some codes adds to the float bias."""
    if not plan.config.bias_correction:
        return np.zeros(len(weight.codes), np.float32)
    return (statistics.best_bias(weight.dequantize()) - kernel.uses[0].kernel_bias).astype(np.float32)


def _searched_scales(view: np.ndarray, plan: KernelPlan, statistics: CentredStatistics) -> BlockScales:
    """Scales as the config asks, by output error where it says so."""
    config = plan.config
    layer_shift = config.scaler == "shift" and isinstance(config.granularity, PerTensor)
    if config.weight_scale != "output" or layer_shift:
        return config.scales_of(
            view, plan.symmetric_codes
        )  # WES has one base and shifts that follow from it: the weight error decides
    outputs, inputs, _ = view.shape
    return search_scales(
        view,
        statistics.gram,
        config.granularity.block_shape(outputs, inputs),
        config.weight_bits,
        config.scaler,
        cross=statistics.cross,
        allowed=config.multipliers,
        symmetric=plan.symmetric_codes,
        thorough=plan.rounding == "nearest",  # learned codes are as good with any
    )


def _rounded(
    view: np.ndarray, scales: BlockScales, plan: KernelPlan, statistics: CentredStatistics, damping: float
) -> QuantizedWeight:
    config = plan.config
    if plan.rounding == "nearest":
        return quantize_nearest(view, scales, config.weight_bits)
    small = view.shape[1] * view.shape[2] <= MOST_INPUTS_FOR_GAINS and config.weight_bits < 8
    return round_weight(
        view,
        scales,
        config.weight_bits,
        statistics,
        plan.rounding,
        config.rounding.options(),
        damping=damping,
        # Multiples of float16 scales, say, would be none.
        symmetric=plan.symmetric_codes,
        gains=GAINS if small and plan.layouts.candidates[0].exact_scales else (),
    )
