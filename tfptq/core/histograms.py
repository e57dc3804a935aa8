"""Histograms that grow and merge without loss.

All bin edges lie on the dyadic grid of the whole number line: with the exponent ``e``, bin ``j`` holds the values
``x`` with ``floor(x / 2**e) == j``. Raising the exponent by one joins the bins ``2j`` and ``2j + 1``; nothing is ever
resampled. The exponent is the smallest one that lets ``[min(0, low), max(0, high)]`` fit into a given number of bins,
hence a function of the range alone. So the histogram of a union is the sum of the histograms: merging is
commutative, associative and exact, and memory is constant.
"""

import math
from dataclasses import dataclass

import numpy as np

#: Finest bin width, as a power of two; finer values all share a bin.
LOWEST_EXPONENT = -120


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values on the dyadic grid."""

    low: float  # smallest value counted (exact)
    high: float  # largest value counted (exact)
    exponent: int  # bins are ``2**exponent`` wide
    #: int64 ``[n]``, the bins ``first .. first + n - 1``; together they cover 0, ``low`` and ``high``.
    counts: np.ndarray
    zeros: int  # how many of the values are exactly 0
    bins: int  # most bins there may be

    @property
    def first(self) -> int:
        """Index of the first bin on the dyadic grid, 0 or negative."""
        return _index(min(self.low, 0.0), self.exponent)

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> np.ndarray:
        """float64 ``[n + 1]`` bin edges, the outer ones drawn in to the exact range (0 included)."""
        edges = np.ldexp(np.arange(self.first, self.first + len(self.counts) + 1, dtype=np.float64), self.exponent)
        return np.clip(edges, min(self.low, 0.0), max(self.high, 0.0))

    def widened(self, low: float, high: float) -> "Histogram":
        """The same counts on the grid that the union with the range ``[low, high]`` needs."""
        low, high = min(self.low, low), max(self.high, high)
        exponent, first, size = _layout(low, high, self.bins)
        if (exponent, first, size) == (self.exponent, self.first, len(self.counts)):
            return Histogram(low, high, exponent, self.counts, self.zeros, self.bins)
        index = (np.arange(len(self.counts)) + self.first) >> (exponent - self.exponent)
        counts = np.zeros(size, np.int64)
        np.add.at(counts, index - first, self.counts)
        return Histogram(low, high, exponent, counts, self.zeros, self.bins)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Histogram of the union; both must have the same number of bins."""
        if self.bins != other.bins:
            raise ValueError(f"histograms with {self.bins} and {other.bins} bins cannot be merged")
        a, b = self.widened(other.low, other.high), other.widened(self.low, self.high)
        return Histogram(a.low, a.high, a.exponent, a.counts + b.counts, a.zeros + b.zeros, a.bins)


def histogram(values: np.ndarray, bins: int, weight: int = 1) -> Histogram:
    """Count finite values of a non-empty array in at most ``bins`` bins, each value ``weight`` times."""
    values = values.ravel()
    low, high = float(values.min()), float(values.max())
    exponent, first, size = _layout(low, high, bins)
    # float64 keeps the scaling by a power of two exact, so that every merge order sees the same bins.
    index = np.floor(np.ldexp(values.astype(np.float64), -exponent)).astype(np.int64) - first
    counts = np.bincount(index, minlength=size) * weight
    zeros = (values.size - int(np.count_nonzero(values))) * weight
    return Histogram(low, high, exponent, counts, zeros, bins)


def _index(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _layout(low: float, high: float, bins: int) -> tuple[int, int, int]:
    """Exponent, first bin and number of bins for a range."""
    low, high = min(low, 0.0), max(high, 0.0)
    # The span covers at least ``bins`` bins of the width one step below this start, so no smaller exponent fits.
    exponent = max(LOWEST_EXPONENT, math.frexp((high - low) / bins)[1] - 1)
    while _index(high, exponent) - _index(low, exponent) >= bins:
        exponent += 1
    first = _index(low, exponent)
    return exponent, first, _index(high, exponent) - first + 1
