"""Search for clipping ranges on a histogram.

**Least squares.** An activation grid is ``{k D}`` for a scale ``D`` and ``2**bits`` whole numbers ``k``; the zero point
says which ones. So rounding depends on ``D`` alone and clipping on the two ends ``a``, ``b`` alone: with values
spread evenly inside each bin,

    J(D, zero point) = sum_{a <= x <= b} (x - D rint(x/D))^2  +  sum_{x < a} (a - x)^2  +  sum_{x > b} (x - b)^2.

Running sums over the bins, one set for each ``D``, give ``J`` for all zero points at once; the search is over the grids
that exist, with nothing left to round.

Clipping errors count ``CLIPPING_WEIGHT`` times in the choice: they pull in one direction and hit the same few
features in every sample, so that the next layer adds them up, whereas rounding errors average out. As a grid is
only taken when its plain ``J`` is not above that of the full range, the choice is never worse than min-max. (With
activations alone at 8 bits, MobileNetV2, ResNet-20 and MobileNetV1 gave about the same output SNR for weights 1 to 16
and kept most answers at 4.)
"""

import numpy as np

from tfptq.core.affine import SMALLEST_SCALE, ActivationGrid, activation_grid
from tfptq.core.histograms import Histogram

#: How much more a squared clipping error weighs than a squared rounding error.
CLIPPING_WEIGHT = 4.0
#: The smallest scale tried is the full range's times two to this power: what a tensor wants with an outlier that is 128
#: times as large as all its other values.
_NARROWEST = -7.0
#: Scales are first tried at quarters of an octave, 29 of them for seven octaves, then 25 around the best of these. More
#: cost time, which grows with scales times zero points.
_COARSE, _FINE = 29, 25
#: Zero points are first tried at this distance.
_STRIDE = 4
#: Bins narrower than this share of the bin width (the outer ones are drawn in) are taken for a point: the difference of
#: primitives at their edges would be rounding noise.
_POINT = 1e-6


def least_squares_range(counts: Histogram, bits: int = 8) -> tuple[float, float]:
    """Range ``(minimum, maximum)`` with the least expected squared error on a grid of some bits.

    It holds 0, is the real range of a grid, and is not longer than the full range, whose ``expected_error`` it does
    not exceed.
    """
    if counts.low == counts.high == 0.0:
        return 0.0, 0.0
    full = activation_grid(min(counts.low, 0.0), max(counts.high, 0.0), bits)
    moments = _Moments(counts)
    step = _NARROWEST / (_COARSE - 1)
    least, most = full.code_range
    # A range that ends at 0 stays one-sided, as for the full grid; 16-bit grids are symmetric.
    fixed = bits == 16 or full.zero_point in (least, most)
    zero_points = np.array([]) if fixed else np.arange(least, most + 1, _STRIDE)
    coarse = _best_grid(moments, full, full.scale * np.exp2(np.linspace(0.0, _NARROWEST, _COARSE)), zero_points)
    fine = np.minimum(coarse.scale * np.exp2(np.linspace(-step, step, _FINE)), full.scale)
    near = np.arange(-_STRIDE, _STRIDE + 1) + coarse.zero_point
    zero_points = np.array([]) if fixed else near[(near >= least) & (near <= most)]
    return _best_grid(moments, full, fine, zero_points).real_range


def expected_error(counts: Histogram, grid: ActivationGrid) -> float:
    """Expected squared error ``J`` of a grid, summed over the histogram's values."""
    rounding, clipping = _Moments(counts).errors(np.array([grid.scale]), np.array([grid.zero_point]), grid)
    return float(rounding[0, 0] + clipping[0, 0])


def _best_grid(
    moments: "_Moments", full: ActivationGrid, scales: np.ndarray, zero_points: np.ndarray
) -> ActivationGrid:
    """Best grid out of these scales and zero points, together with those of the full range."""
    scales = np.maximum(np.append(scales, full.scale).astype(np.float32), SMALLEST_SCALE).astype(np.float64)
    zero_points = np.append(zero_points, full.zero_point).astype(np.int64)
    rounding, clipping = moments.errors(scales, zero_points, full)  # [scales, zero points]
    allowed = rounding + clipping <= (rounding + clipping)[-1, -1]
    cost = np.where(allowed, rounding + CLIPPING_WEIGHT * clipping, np.inf)
    scale, zero_point = np.unravel_index(np.argmin(cost), cost.shape)
    return ActivationGrid(float(scales[scale]), int(zero_points[zero_point]), full.bits)


class _Moments:
    """Running sums over a histogram, in units of its bin width."""

    def __init__(self, counts: Histogram):
        self.unit = float(np.ldexp(1.0, counts.exponent))
        self.edges = counts.edges / self.unit  # [n + 1]
        self.mass = counts.counts.astype(np.float64)
        # Exact zeros lie on every grid.
        self.mass[-counts.first] -= counts.zeros
        self.width = np.diff(self.edges)
        self.center = (self.edges[1:] + self.edges[:-1]) / 2.0
        moments = np.stack([np.ones_like(self.center), self.center, self.center**2 + self.width**2 / 12.0])
        self.below = _running_sum(moments * self.mass)  # [3, n + 1]

    def errors(
        self, scales: np.ndarray, zero_points: np.ndarray, like: ActivationGrid
    ) -> tuple[np.ndarray, np.ndarray]:
        """Summed squared rounding and clipping errors, each ``[scales, zero points]``."""
        least, most = like.code_range
        steps = scales[:, None] / self.unit
        low, high = (least - zero_points) * steps, (most - zero_points) * steps
        rounded = self._rounding(steps)  # [scales, n + 1]
        low_bin, low_part = self._locate(low)
        high_bin, high_part = self._locate(high)
        inside = _interpolate(rounded, high_bin, high_part) - _interpolate(rounded, low_bin, low_part)
        clipped = self._below(low, low_bin, low_part) + self._above(high, high_bin, high_part)
        return inside * self.unit**2, clipped * self.unit**2

    def _rounding(self, steps: np.ndarray) -> np.ndarray:
        """Running sums ``[scales, n + 1]`` of the squared distance to the nearest multiple of each step."""
        turns = self.edges / steps
        nearest = np.rint(turns)
        turns -= nearest
        primitive = (nearest / 12.0 + turns * turns * turns / 3.0) * steps**3
        errors = np.diff(primitive, axis=1) / np.maximum(self.width, _POINT)
        narrow = np.flatnonzero(self.width < _POINT)
        center = self.center[narrow]
        errors[:, narrow] = (center - steps * np.rint(center / steps)) ** 2
        return _running_sum(self.mass * errors)

    def _locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bin of each point, and the fraction of the bin below it."""
        bins = np.clip(np.searchsorted(self.edges, points, side="right") - 1, 0, len(self.mass) - 1)
        width = np.maximum(self.width[bins], 1e-30)  # not 0: a bin without width has no part below
        return bins, np.clip((points - self.edges[bins]) / width, 0.0, 1.0)

    def _below(self, points: np.ndarray, bins: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Summed squared distance of the values below each point to it."""
        count, first, second = self.below[:, bins]
        return _spread(count, first, second, points) + self.mass[bins] * self.width[bins] ** 2 * part**3 / 3.0

    def _above(self, points: np.ndarray, bins: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Summed squared distance of the values above each point to it."""
        count, first, second = self.below[:, -1][:, None, None] - self.below[:, bins + 1]
        rest = self.mass[bins] * self.width[bins] ** 2 * (1.0 - part) ** 3 / 3.0
        return _spread(count, first, second, points) + rest


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ..., n entries along the last axis."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)


def _interpolate(running: np.ndarray, bins: np.ndarray, part: np.ndarray) -> np.ndarray:
    left = np.take_along_axis(running, bins, axis=1)
    return left + part * (np.take_along_axis(running, bins + 1, axis=1) - left)


def _spread(count: np.ndarray, first: np.ndarray, second: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Summed squared distance to a point, from the moments about 0."""
    return np.maximum(second - 2.0 * point * first + point**2 * count, 0.0)
