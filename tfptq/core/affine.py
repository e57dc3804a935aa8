"""Uniform affine grids: the map between real values and integer codes.

A real value ``r`` and its code ``q`` are tied by ``r = scale * (q - zero_point)``.

* Weights have ``zero_point = 0``. From 5 bits on, codes are in ``[-(2**(b-1)-1), 2**(b-1)-1]``, so that the grid is
  its own mirror image and int8 kernels never meet -128. Up to 4 bits, codes go down to ``-2**(b-1)``, which INT4
  kernels read: there, one code more makes steps noticeably finer.
* Activations are asymmetric with the full range of codes (int8: ``[-128, 127]``), or symmetric for int16,
  as LiteRT's 8-bit quantization specification asks.

All functions are pure and work on numpy arrays of any shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Widths that a weight grid can have, in bits.
WEIGHT_BITS = (2, 3, 4, 5, 6, 8)
#: What a device multiplies the codes of a block with; the metadata of a file numbers them in this order.
SCALE_KINDS = ("float", "integer", "shift")
#: Widths that an activation grid can have, in bits. Only 8 and 16 exist on stock runtimes.
ACTIVATION_BITS = (4, 5, 6, 7, 8, 16)
#: Largest integer multiplier of the scale kind ``integer``, and largest shift of the scale kind ``shift``.
LARGEST_MULTIPLIER, LARGEST_SHIFT = 16, 15
#: Smallest scale we ever emit: keeps ``1 / scale`` and products of two scales normal float32 numbers.
SMALLEST_SCALE = np.float32(2.0**-60)
#: Scale of a tensor that is always 0. That of a bias behind it is a multiple of it, and so has to be fine, but not so
#: fine that codes of large biases leave int32.
EMPTY_SCALE = 2.0**-8

#: A channel of an input may lose so many times the resolution that it has behind a normalization of all: two bits.
MOST_COARSENING = 4.0

#: TFLite takes a scale for a power of two when its binary logarithm is within 0.001 of a whole number.
_NEAR_POWER_OF_TWO = 0.002
#: Widest weight codes that use all of their two's complement range.
_FULL_RANGE_BITS = 4


def weight_code_limit(bits: int) -> int:
    """Largest ``bits``-bit weight code, ``2**(bits-1) - 1``: what max-abs scales map the largest weight to."""
    return 2 ** (bits - 1) - 1


def weight_code_range(bits: int, symmetric: bool = False) -> tuple[int, int]:
    """Smallest and largest ``bits``-bit weight code; if ``symmetric``, without the one that has no mirror image."""
    limit = weight_code_limit(bits)
    return (-limit - 1 if bits <= _FULL_RANGE_BITS and not symmetric else -limit), limit


def nearest_codes(values: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    """Nearest weight codes, int8, of values of any shape; ties go to the even one, as in LiteRT's float kernels."""
    ratio = np.asarray(values, np.float64) / np.asarray(scale, np.float64)
    return np.clip(np.rint(ratio), *weight_code_range(bits)).astype(np.int8)


def multipliers_of(kind: str, bits: int, allowed: Sequence[int] | None = None) -> np.ndarray:
    """Multipliers ``r`` of the kind ``"integer"`` or ``"shift"`` whose products with every code fit int8, ascending.

    ``allowed`` are the only integers to choose from; refused where none of them fits.
    """
    largest = 127 // -weight_code_range(bits)[0]
    if kind == "shift":
        return 2 ** np.arange(largest.bit_length())
    largest = min(LARGEST_MULTIPLIER, largest)
    if allowed is None:
        return np.arange(1, largest + 1)
    found = np.unique([r for r in allowed if r <= largest])
    if not len(found):
        raise ValueError(
            f"multipliers is {tuple(allowed)}; with {bits} bits at least one must be {largest} or less: code times "
            "multiplier must fit int8"
        )
    return found


@dataclass(frozen=True)
class ActivationGrid:
    """The affine grid of one activation tensor."""

    scale: float  # positive float32 step between two codes
    zero_point: int  # code of the real value 0
    bits: int = 8  # 4 to 8 (asymmetric) or 16 (symmetric)

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.bits == 16:
            return -32767, 32767
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    @property
    def real_range(self) -> tuple[float, float]:
        """Smallest and largest real value on the grid."""
        low, high = self.code_range
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Nearest codes of real ``values`` of any shape, saturating, as int8, or int16 with 16 bits."""
        low, high = self.code_range
        codes = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero_point
        return np.clip(codes, low, high).astype(np.int16 if self.bits == 16 else np.int8)

    def dequantize(self, codes: np.ndarray) -> np.ndarray:
        """Real values of integer ``codes`` of any shape, as float32."""
        return ((np.asarray(codes, np.int32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)


def activation_grid(minimum: float, maximum: float, bits: int = 8) -> ActivationGrid:
    """The grid that covers a range of real values: asymmetric with 4 to 8 bits, symmetric with 16.

    The range is first widened to contain 0, so that zero padding and ReLU are exact. An empty range (a tensor
    that is always 0) gets ``EMPTY_SCALE``. The scale of a symmetric grid is no power of two: TFLite's int16 sums of
    such scales take shifts in place of multipliers, and refuse operands with a larger scale than the result's.
    """
    if not (np.isfinite(minimum) and np.isfinite(maximum)):
        raise ValueError(f"activation range [{minimum}, {maximum}] is not finite")
    if minimum > maximum:
        raise ValueError(f"activation range [{minimum}, {maximum}] is upside down")
    minimum, maximum = min(float(minimum), 0.0), max(float(maximum), 0.0)
    if bits == 16:
        bound = max(-minimum, maximum)
        scale = _float32_scale(bound / 32767.0)
        exponent = np.log2(scale)
        if bound > 0.0 and abs(exponent - np.rint(exponent)) < _NEAR_POWER_OF_TWO:
            scale = _float32_scale(scale * 2.0 ** (2.0 * _NEAR_POWER_OF_TWO))
        return ActivationGrid(scale, 0, 16)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = _float32_scale((maximum - minimum) / (high - low))
    zero_point = int(np.clip(np.rint(low - minimum / scale), low, high))
    return ActivationGrid(scale, zero_point, bits)


def _float32_scale(scale: float) -> float:
    """Round to float32 (what a ``.tflite`` file can hold) and keep away from 0."""
    if scale == 0.0:
        return EMPTY_SCALE
    return float(max(np.float32(scale), SMALLEST_SCALE))


def symmetric_range(minimum: float, maximum: float) -> tuple[float, float]:
    """The least range around another whose int8 grid has the zero point 0."""
    bound = max(-float(minimum), float(maximum))
    return -bound * 128.0 / 127.0, bound
