"""Fixed-point rescaling of 32-bit accumulators, as LiteRT's reference kernels round.

A positive real multiplier ``M`` becomes a Q31 mantissa and an exponent, ``M ~ mantissa * 2**-31 * 2**exponent`` with
``mantissa`` in ``[2**30, 2**31)``. An int32 ``x`` is multiplied with it in one of two ways:

    double rounding     high = x * 2**max(exponent, 0) * mantissa / 2**31     (to nearest, ties upwards)
                        y    = high / 2**max(-exponent, 0)                    (to nearest, ties away from zero)
    single rounding     y    = x * mantissa / 2**(31 - exponent)              (to nearest, ties away from zero)

The reference kernels of CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV round twice, in exactly these integers. That of
FULLY_CONNECTED multiplies by ``M`` in double precision and rounds once; the Q31 mantissa can differ from it only where
the real result lies within ``2**-32`` of its size of a tie, about once in ten million outputs.

Since only the exponent tells ``M`` from ``M * 2**-k``, a device with one multiplier for a whole layer and a right
shift per channel (WES, arXiv 2008.05767) computes the same as one with a multiplier per channel.
"""

import math

import numpy as np

from tfptq.ops.table import FUSED_FUNCTIONS

#: Smallest exponent that is kept; below it every product of an int32 rounds to 0.
LOWEST_EXPONENT = -31


def quantize_multiplier(multiplier: float) -> tuple[int, int]:
    """Q31 mantissa and exponent, not clipped, of a finite multiplier of at least 0."""
    if not (math.isfinite(multiplier) and multiplier >= 0):
        raise ValueError(f"the multiplier {multiplier} is not a finite number of at least 0")
    fraction, exponent = math.frexp(multiplier)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        return 2**30, exponent + 1
    return mantissa, exponent


def rescale(
    accumulators: np.ndarray, mantissa: np.ndarray | int, exponent: np.ndarray | int, single_rounding: bool
) -> np.ndarray:
    """Multiply int32 accumulators ``[..., O]`` by ``mantissa * 2**(exponent - 31)``, both ``[O]`` or one for all.

    Exponents below ``LOWEST_EXPONENT`` give 0. With double rounding, a left shift out of int32 is an OverflowError; a
    device would wrap.
    """
    exponent, mantissa = np.asarray(exponent, np.int64), np.asarray(mantissa, np.int64)
    if single_rounding:
        # Beyond 2**30 every accumulator but 0 saturates, whatever the exponent.
        shift = 31 - np.clip(exponent, LOWEST_EXPONENT, 30)
        rounded = rounding_shift_right(accumulators * mantissa, shift)
    else:
        shifted = check_int32(accumulators << np.clip(exponent, 0, 31))
        high = _rounding_doubling_high(shifted, mantissa)
        rounded = rounding_shift_right(high, np.clip(-exponent, 0, -LOWEST_EXPONENT))
    return np.where(exponent < LOWEST_EXPONENT, 0, rounded)


def check_int32(values: np.ndarray) -> np.ndarray:
    """Return integers as they are; an OverflowError if no 32-bit register holds them."""
    if values.size and (values.max() > 2**31 - 1 or values.min() < -(2**31)):
        raise OverflowError(f"accumulators reach from {values.min()} to {values.max()} and overflow int32")
    return values


def rounding_shift_right(values: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """Divide int64 of any shape by ``2**shift`` to nearest, ties away from zero; ``shift`` broadcasts."""
    mask = (np.int64(1) << np.asarray(shift, np.int64)) - 1
    threshold = (mask >> 1) + (values < 0)
    return (values >> shift) + ((values & mask) > threshold)


def _rounding_doubling_high(values: np.ndarray, mantissa: np.ndarray) -> np.ndarray:
    """``values * mantissa / 2**31`` to nearest, ties upwards."""
    product = values * mantissa
    # The reference adds 2**30 (1 - 2**30 below zero) and truncates towards zero, which for a negative half gives the
    # larger neighbour.
    nudged = product + np.where(product >= 0, 2**30, 1 - 2**30)
    return np.sign(nudged) * (np.abs(nudged) >> 31)


def activation_range(kind: str, scale: float, zero_point: int) -> tuple[int, int]:
    """Smallest and largest int8 code that a fused activation function (``"RELU6"``) lets through, on a grid."""
    clips = {spec.name: spec.clamp for spec in FUSED_FUNCTIONS.values() if spec.clamp is not None}
    bounds = {"NONE": (None, None), **clips}
    if kind not in bounds:
        raise ValueError(f"the fused activation {kind} has no integer form here; there are {', '.join(bounds)}")

    def code(real: float) -> int:
        # The kernels divide in float32. Beyond 255 steps every code saturates.
        ratio = min(max(real / scale, -256.0), 256.0)
        ratio = float(np.float32(real) / np.float32(scale)) if abs(ratio) < 256 else ratio
        return zero_point + int(math.copysign(math.floor(abs(ratio) + 0.5), ratio))

    low, high = bounds[kind]
    return (-128 if low is None else max(-128, code(low))), (127 if high is None else min(127, code(high)))
