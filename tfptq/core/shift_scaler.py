"""The shift scaler: channel-wise scales out of one layer scale and 4-bit shifts.

Weight equalizing shift scaler (WES), arXiv 2008.05767. Each output channel is multiplied by a power of two before
the layer is quantized with *one* scale ``s``, and the shift is undone inside the requantization, where a device
shifts anyway. With ``r[c] = max|W[c]|`` and ``s = max(r) / (2**(b-1) - 1)``:

    k[c] = min(15, floor(log2(max(r) / r[c]))),     S[c] = s * 2**-k[c].

So every channel uses at least half of the code range unless it is more than 2**15 times smaller than the largest.
A dead channel (``r[c] = 0``) keeps ``k = 0``: its codes are 0 anyway, and its bias gets the scale of the layer.

With ``search=True`` the layer scale is searched too: candidates ``f * s``, for each of which every channel takes the
better one of the shift above (derived for ``f * s``, so that nothing clips) and one more, which clips its largest
weights; the layer scale with the least squared error over all weights wins. It is never worse than ``f = 1``.
"""

import dataclasses

import numpy as np

from tfptq.core.affine import LARGEST_SHIFT, SMALLEST_SCALE, weight_code_limit
from tfptq.core.blocks import BlockScales
from tfptq.core.rounding_errors import rounding_errors

#: Largest int32 bias code that scales are chosen for: half of int32 is left to the accumulated products, and a little
#: of the other half to the rounding of scales to float32.
BIAS_CODE_LIMIT = 2**30 - 2**20
#: Candidates for the layer scale, as multiples of the max-abs scale. From 2 on the shifts only repeat.
CANDIDATES = np.concatenate([[1.0], np.linspace(0.4, 1.6, 61)])


def channel_shifts(maxima: np.ndarray, reference: float) -> np.ndarray:
    """Shifts ``k``, int8 ``[O]``, with ``maxima * 2**k <= reference``, as large as 4 bits allow.

    0 where a maximum is 0 or above the reference.
    """
    alive = maxima > 0.0
    # frexp is exact where log2 may round up to the next integer: reference / r = f * 2**e with f in [1/2, 1).
    exponents = np.frexp(reference / np.where(alive, maxima, reference or 1.0).astype(np.float64))[1] - 1
    return np.where(alive, np.clip(exponents, 0, LARGEST_SHIFT), 0).astype(np.int8)


def shift_scales(view: np.ndarray, bits: int, search: bool = False) -> BlockScales:
    """WES scales of a weight ``[O, I, T]``, BatchNorm folded: ``base [1]``, ``factors`` ``-k`` as int8 ``[O, 1]``.

    ``search`` looks for the layer scale with the least squared weight error instead of max-abs.
    """
    limit = weight_code_limit(bits)
    maxima = np.abs(view).max(axis=(1, 2), initial=0.0).astype(np.float64)  # [O]
    largest = maxima.max(initial=0.0) or 1.0
    # Working in units of the largest weight keeps squares of any magnitude finite.
    factor, shifts = 1.0, channel_shifts(maxima, largest)
    if search:
        factor, shifts = _search((view / largest).astype(np.float32), maxima / largest, bits)
    base = np.maximum(np.array([factor * largest / limit], np.float32), SMALLEST_SCALE)
    return BlockScales("shift", base, -shifts[:, None], (1, view.shape[1]))


def limit_shifts_for_bias(
    scales: BlockScales, bias: np.ndarray, input_scale: float, limit: float | np.ndarray = BIAS_CODE_LIMIT
) -> BlockScales:
    """Take shifts back where the bias ``[O]``, at ``input_scale * S[c]``, would exceed ``limit``, one or ``[O]``.

    ``S[c]`` changes in no other channel, unless a layer scale too small for some bias had to grow, and a channel would
    need a shift above 15 to make up for it. Weights must be quantized with these scales.
    """
    smallest = smallest_scales_for_bias(bias, input_scale, limit)
    # A power of two on the layer scale, put back by the shifts, leaves the other channels as they are.
    growth = max(0, int(np.frexp(smallest.max(initial=0.0) / scales.base[0])[1]))
    base = np.ldexp(scales.base, growth).astype(np.float32)
    shifts = np.minimum(growth - scales.factors[:, 0].astype(np.int32), LARGEST_SHIFT)
    limited = np.where(smallest > 0.0, np.minimum(shifts, channel_shifts(smallest, float(base[0]))), shifts)
    return dataclasses.replace(scales, base=base, factors=-limited[:, None].astype(np.int8))


def smallest_scales_for_bias(
    bias: np.ndarray, input_scale: float, limit: float | np.ndarray = BIAS_CODE_LIMIT
) -> np.ndarray:
    """Smallest weight scale of each channel, float64 ``[O]``, that keeps the bias within ``limit``."""
    return np.abs(bias).astype(np.float64) / (input_scale * limit)


def _search(units: np.ndarray, maxima: np.ndarray, bits: int) -> tuple[float, np.ndarray]:
    """Best multiple of the layer scale, and the shifts that go with it."""
    fitting = np.stack([channel_shifts(maxima, factor) for factor in CANDIDATES])  # [n, O]
    shifts = np.concatenate([fitting, np.minimum(fitting + 1, LARGEST_SHIFT)])  # [2n, O]
    layer_scales = np.tile(CANDIDATES / weight_code_limit(bits), 2)[:, None]
    scales = np.ldexp(layer_scales, -shifts.astype(np.int32))
    errors = rounding_errors(units, scales[:, :, None], (1, units.shape[1]), bits)
    errors, shifts = errors.reshape(2, *fitting.shape), shifts.reshape(2, *fitting.shape)
    best = errors.min(axis=0).sum(axis=1).argmin()
    fits, clips = errors[:, best]
    return float(CANDIDATES[best]), np.where(clips < fits, shifts[1, best], shifts[0, best])
