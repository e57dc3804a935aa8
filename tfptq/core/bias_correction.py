"""The bias of a quantized layer: correction of mean shifts, and integer codes.

Rounding a weight moves the mean of the layer's output; the bias can take that out. With the error-free output
``z = W x + b`` and the mean ``E[x]`` over the calibration samples (Nagel et al., arXiv 1906.04721, section 4.2):

    b' = b + (W - W^) E[x].

On the device the bias is int32 on the grid ``input_scale * S[c]``, or int64 with 16-bit activations. A tiny ``S[c]``
under a large bias, as a channel without weights may have it, would overflow: ``make_room_for_bias`` enlarges such
scales.
"""

import dataclasses

import numpy as np

from tfptq.core.blocks import BlockScales, QuantizedWeight, quantize_nearest
from tfptq.core.shift_scaler import BIAS_CODE_LIMIT, limit_shifts_for_bias, smallest_scales_for_bias

#: Half of what kernels can add up: 32 bits with 8-bit activations; 48 of 64 bits with 16-bit ones, because the other 16
#: are the multiplier's in ``MultiplyByQuantizedMultiplier(int64_t, ...)`` of LiteRT and ``arm_nn_requantize_s64``.
_HALF_OF_SUM = {np.dtype(np.int32): 2**30, np.dtype(np.int64): 2**46}


def correct_bias(bias: np.ndarray, view: np.ndarray, quantized: np.ndarray, input_mean: np.ndarray) -> np.ndarray:
    """Take the mean shift of weight rounding out of a bias; float32 ``[O]``.

    Args:
        bias: float ``[O]``.
        view: float weight ``[O, I, T]``.
        quantized: dequantized weight ``[O, I, T]``.
        input_mean: mean input under each weight: ``[I]``, ``[I, T]`` (padding lowers the mean of border taps), or
            anything that broadcasts to ``[O, I, T]`` (depthwise: ``[O, 1, 1]`` or ``[O, 1, T]``).
    """
    error = np.asarray(view, np.float64) - quantized
    return (bias + _expected_output(error, input_mean)).astype(np.float32)


def quantize_bias(bias: np.ndarray, scale: np.ndarray, dtype: type = np.int32) -> np.ndarray:
    """Round a bias to integer codes within half of what kernels add up, so that products on top cannot overflow.

    ``scale`` is ``input_scale * S[c]``. A bias that does not fit is refused; ``make_room_for_bias`` prevents it.
    """
    codes = np.rint(np.asarray(bias, np.float64) / np.asarray(scale, np.float64))
    fits = np.abs(codes) <= _HALF_OF_SUM[np.dtype(dtype)]
    if not fits.all():
        channel = int(np.argmin(fits))
        raise ValueError(
            f"bias {bias[channel]:g} of output channel {channel} does not fit half of {np.dtype(dtype).name} at its "
            "scale; enlarge the weight's scales with make_room_for_bias"
        )
    return codes.astype(dtype)


def bias_code_limits(bias: np.ndarray, activation_bits: int, output_scale: float) -> np.ndarray:
    """Largest bias code of each channel, float64 ``[O]``, for ``make_room_for_bias``.

    With 16-bit activations the sum has room for 46 bits, but runtimes round a multiplier ``M = input_scale * S[c] /
    output_scale`` below ``2**-32`` to 0, and the bias with it. So codes that need more than 30 bits keep ``M`` above
    that; of a bias with less, it is below half a step of the output that is lost.
    """
    if activation_bits <= 8:
        return np.full(len(bias), float(BIAS_CODE_LIMIT))
    kept = np.abs(bias).astype(np.float64) / output_scale * 2.0**31  # the code at M = 2**-31
    return np.clip(kept, BIAS_CODE_LIMIT, _HALF_OF_SUM[np.dtype(np.int64)] * (1 - 2.0**-10))


def make_room_for_bias(
    weight: QuantizedWeight, bias: np.ndarray, input_scale: float, limit: float | np.ndarray = BIAS_CODE_LIMIT
) -> QuantizedWeight:
    """Enlarge scales where the bias would overflow, and round the weights there to the larger scales.

    That costs little: where the bias needs 30 bits, an error of half a code in each weight is nothing beside it for
    8-bit activations.

    ``limit`` is the largest bias code, of all channels or of each, see ``bias_code_limits``. The weight itself comes
    back where there is room already.
    """
    scales = limit_scales_for_bias(weight.scales, bias, input_scale, limit)
    if np.array_equal(scales.values(), weight.scales.values()):
        return weight
    codes = quantize_nearest(weight.dequantize(), scales, weight.bits).codes
    return dataclasses.replace(weight, codes=codes, scales=scales)


def limit_scales_for_bias(
    scales: BlockScales, bias: np.ndarray, input_scale: float, limit: float | np.ndarray = BIAS_CODE_LIMIT
) -> BlockScales:
    """Enlarge scales of any kind so that all of ``bias / (input_scale * S[c])`` are within ``limit``, one or ``[O]``.

    ``S[c]`` is the scale of the layer's int8 form: of several blocks in a row the base of their integers, or the
    smallest of their powers of two. Rows with several float scales are left alone: their layers keep a float bias.
    """
    if scales.is_shift_scaler:
        return limit_shifts_for_bias(scales, bias, input_scale, limit)
    if scales.kind == "float" and scales.factors.shape[1] > 1:
        return scales
    smallest = smallest_scales_for_bias(bias, input_scale, limit)
    rows = np.maximum.reduceat(smallest, np.arange(0, len(smallest), scales.block_shape[0]))  # [V]
    held = scales.base if scales.kind == "integer" else scales.values().min(axis=1)
    growth = np.maximum(rows / held, 1.0)
    if scales.kind == "float":
        return dataclasses.replace(scales, factors=(scales.factors * growth[:, None]).astype(np.float32))
    return dataclasses.replace(scales, base=(scales.base * growth).astype(np.float32))


def _expected_output(weight: np.ndarray, input_mean: np.ndarray) -> np.ndarray:
    """``W E[x]``, float64 ``[O]``."""
    mean = np.asarray(input_mean, np.float64)
    if mean.ndim == 1:
        mean = mean[:, None]
    try:
        mean = np.broadcast_to(mean, weight.shape)
    except ValueError:
        raise ValueError(
            f"an input mean of shape {np.shape(input_mean)} does not fit a weight {weight.shape}"
        ) from None
    return np.einsum("oit,oit->o", weight, mean)
