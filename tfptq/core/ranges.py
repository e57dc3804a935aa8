"""Activation ranges: what is observed of a tensor, and the range chosen from it.

``TensorStatistics`` watches one tensor over a stream of batches in constant memory: exact minimum and maximum, and a
histogram. Statistics of two streams add up with ``a + b``.

``activation_range`` turns them into the range that ``tfptq.core.affine.activation_grid`` takes:

* ``min_max``: everything seen.
* ``percentile``: the share ``p`` of the values, with ``(100 - p)/2`` percent cut off at either end.
* ``mse``: the range with the least expected squared error, found in ``tfptq.core.range_search``; with 16 bits,
  everything seen.
"""

import math

import numpy as np

from tfptq.base.arguments import one_of
from tfptq.core.histograms import Histogram, histogram
from tfptq.core.range_search import least_squares_range

#: Ways to choose a range.
CALIBRATION_METHODS = ("min_max", "percentile", "mse")
#: Most values that one batch of one tensor puts into the histogram. Minimum and maximum see all values.
SAMPLES_PER_BATCH = 16384


class TensorStatistics:
    """What has been observed of one tensor."""

    def __init__(self, bins: int = 2048):
        self.bins = bins  # most bins of the histogram
        self.count = 0
        self.minimum, self.maximum = math.inf, -math.inf  # exact
        self.histogram: Histogram | None = None  # of (a sample of) the values; None before the first batch

    def update(self, batch: np.ndarray) -> None:
        """Take in one batch of the tensor, of any shape, as float32; it must have values, all finite."""
        batch = np.ascontiguousarray(batch, np.float32)
        if batch.size == 0:
            raise ValueError(f"a batch of shape {batch.shape} holds no values")
        low, high = float(batch.min()), float(batch.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("the values contain NaN or infinity; clean the calibration data or the model's weights")
        counts = _sampled_histogram(batch, low, high, self.bins)
        self.histogram = counts if self.histogram is None else self.histogram + counts
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.count += batch.size

    def __add__(self, other: "TensorStatistics") -> "TensorStatistics":
        """Statistics of both streams, which must have the same number of bins."""
        if self.bins != other.bins:
            raise ValueError(f"statistics with {self.bins} and {other.bins} bins do not add up")
        merged = TensorStatistics(self.bins)
        merged.count = self.count + other.count
        merged.minimum, merged.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        merged.histogram = self.histogram or other.histogram
        if self.histogram is not None and other.histogram is not None:
            merged.histogram = self.histogram + other.histogram
        return merged


def activation_range(
    statistics: TensorStatistics, method: str = "mse", percentile: float = 99.99, bits: int = 8
) -> tuple[float, float]:
    """Choose the range of an activation, finite and no longer than what was seen and 0.

    Args:
        statistics: what was observed of the tensor.
        method: one of ``CALIBRATION_METHODS``.
        percentile: share of the values kept, in percent, for ``"percentile"``.
        bits: width of the grid that the range is for.
    """
    one_of("method", method, CALIBRATION_METHODS)
    if statistics.histogram is None:
        raise ValueError("no calibration data reached this tensor; pass at least one sample")
    if method == "percentile":
        return _percentile_range(statistics.histogram, percentile)
    if method == "mse" and bits < 16:  # 16-bit steps are so small that cutting values off gains nothing
        return least_squares_range(statistics.histogram, bits)
    return statistics.minimum, statistics.maximum


def _sampled_histogram(batch: np.ndarray, low: float, high: float, bins: int) -> Histogram:
    """Histogram of every ``stride``-th value, each counted ``stride`` times, and of the two exact extremes."""
    stride = -(-batch.size // SAMPLES_PER_BATCH)
    # A stride without a common factor with the shape walks over all channels and positions evenly.
    while stride > 1 and math.gcd(stride, batch.size) != 1:
        stride += 1
    if stride == 1:
        return histogram(batch, bins)
    sample = histogram(batch.reshape(-1)[::stride], bins, stride)
    return sample + histogram(np.array([low, high], np.float32), bins)


def _percentile_range(counts: Histogram, percentile: float) -> tuple[float, float]:
    cumulated = np.concatenate([[0.0], np.cumsum(counts.counts)])
    tail = (100.0 - percentile) / 200.0
    targets = np.array([tail, 1.0 - tail]) * cumulated[-1]
    # Empty bins make flat steps; the last edge before the lower target and the first after the upper one are wanted.
    low_edge = np.searchsorted(cumulated, targets[0], side="right") - 1
    high_edge = np.searchsorted(cumulated, targets[1], side="left")
    edges = counts.edges
    low = np.interp(targets[0], cumulated[low_edge : low_edge + 2], edges[low_edge : low_edge + 2])
    high = np.interp(targets[1], cumulated[high_edge - 1 : high_edge + 1], edges[high_edge - 1 : high_edge + 1])
    low, high = np.clip([low, high], counts.low, counts.high)
    return float(low), float(high)
