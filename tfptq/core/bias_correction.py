"""The bias of a quantized layer: correction of mean shifts, and int32 codes.

Rounding a weight moves the mean of the layer's output; the bias can take that out. With the error-free output
``z = W x + b`` and the mean ``E[x]`` over the calibration samples (Nagel et al., arXiv 1906.04721, section 4.2):

    b' = b + (W - W^) E[x].

On the device the bias is int32 on the grid ``input_scale * S[c]``. A tiny ``S[c]`` under a large bias, as a channel
without weights may have it, would overflow: ``make_room_for_bias`` enlarges such scales.
"""

import dataclasses

import numpy as np

from tfptq.core.blocks import BlockScales, QuantizedWeight, quantize_nearest
from tfptq.core.shift_scaler import limit_shifts_for_bias, smallest_scales_for_bias


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
    """Round a bias ``[O]`` to codes within half of their type, so that the products added to them cannot overflow.

    ``scale`` is ``input_scale * S[c]``. A bias that does not fit is refused; ``make_room_for_bias`` prevents it.
    """
    codes = np.rint(np.asarray(bias, np.float64) / np.asarray(scale, np.float64))
    fits = np.abs(codes) <= np.iinfo(dtype).max // 2 + 1
    if not fits.all():
        channel = int(np.argmin(fits))
        raise ValueError(
            f"bias {bias[channel]:g} of output channel {channel} does not fit half of {np.dtype(dtype).name} at its "
            "scale; enlarge the weight's scales with make_room_for_bias"
        )
    return codes.astype(dtype)


def make_room_for_bias(weight: QuantizedWeight, bias: np.ndarray, input_scale: float) -> QuantizedWeight:
    """Enlarge scales where the int32 bias ``[O]`` would overflow, and round the weights there to the larger scales.

    That costs no accuracy: where the bias needs 30 bits, an error of half a code in each weight is nothing beside it.
    """
    scales = limit_scales_for_bias(weight.scales, bias, input_scale)
    if np.array_equal(scales.values(), weight.scales.values()):
        return weight
    codes = quantize_nearest(weight.dequantize(), scales, weight.bits).codes
    return dataclasses.replace(weight, codes=codes, scales=scales)


def limit_scales_for_bias(scales: BlockScales, bias: np.ndarray, input_scale: float) -> BlockScales:
    """Enlarge scales of any kind so that ``bias / (input_scale * S[c])`` stays within ``BIAS_CODE_LIMIT``.

    ``S[c]`` is the scale of the layer's int8 form: of several blocks in a row the base of their integers, or the
    smallest of their powers of two. Rows with several float scales are left alone: their layers keep a float bias.
    """
    if scales.is_shift_scaler:
        return limit_shifts_for_bias(scales, bias, input_scale)
    if scales.kind == "float" and scales.factors.shape[1] > 1:
        return scales
    smallest = smallest_scales_for_bias(bias, input_scale)
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
