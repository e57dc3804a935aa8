"""Activation ranges: what is observed of a tensor, and the range chosen from it.

``TensorStatistics`` watches one tensor over a stream of batches in constant memory: exact minimum and maximum, moving
averages of the batch extremes, and a histogram. Statistics of two streams add up with ``a + b``.

``activation_range`` turns them into the range that ``tfptq.core.affine.activation_grid`` takes:

* ``min_max``: everything seen.
* ``moving_average``: exponential moving averages of the batch minima and maxima.
* ``percentile``: the share ``p`` of the values, with ``(100 - p)/2`` percent cut off at either end.
* ``mse``: the range with the least expected squared error, found in ``tfptq.core.range_search``; with 16 bits,
  everything seen.
* ``kl``: the range whose quantized histogram has the least Kullback-Leibler divergence from the measured one
  (Migacz, "8-bit inference with TensorRT", 2017), searched at both ends; same place.
"""

import math

import numpy as np

from tfptq.config import Calibration
from tfptq.core.histograms import Histogram, histogram
from tfptq.core.range_search import least_divergence_range, least_squares_range

#: Most values that one batch of one tensor puts into the histogram. Minimum and maximum see all values.
SAMPLES_PER_BATCH = 16384


class TensorStatistics:
    """What has been observed of one tensor.

    Attributes:
        count: number of values seen.
        batches: number of batches seen.
        minimum: smallest value seen, exact.
        maximum: largest value seen, exact.
        histogram: counts of (a sample of) the values; None before the first batch.

    Example:
        >>> statistics = TensorStatistics()
        >>> for batch in stream:
        ...     statistics.update(batch)
        >>> minimum, maximum = activation_range(statistics, Calibration("mse"), bits=8)
    """

    def __init__(self, calibration: Calibration | None = None):
        """Observe nothing yet.

        Args:
            calibration: gives the number of bins and the momentum of the moving averages.
        """
        calibration = calibration or Calibration()
        self.bins = calibration.bins
        self.momentum = calibration.momentum
        self.count = 0
        self.batches = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.histogram: Histogram | None = None
        # The average after n batches is momentum**n * first + recent: linear in both, so that streams can be joined.
        self._first = np.zeros(2)
        self._recent = np.zeros(2)

    def update(self, batch: np.ndarray) -> None:
        """Take in one batch of the tensor.

        Args:
            batch: numeric array of any shape, taken as float32.

        Raises:
            ValueError: the batch is empty or holds NaN or infinity.
        """
        batch = np.ascontiguousarray(batch, np.float32)
        if batch.size == 0:
            raise ValueError(f"a batch of shape {batch.shape} holds no values")
        low, high = float(batch.min()), float(batch.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("the values contain NaN or infinity; clean the calibration data or the model's weights")
        counts = _sampled_histogram(batch, low, high, self.bins)
        if self.batches == 0:
            self.histogram, self._first = counts, np.array([low, high])
        else:
            self.histogram += counts
        self._recent = self.momentum * self._recent + (1.0 - self.momentum) * np.array([low, high])
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.count += batch.size
        self.batches += 1

    def __add__(self, other: "TensorStatistics") -> "TensorStatistics":
        """Statistics of both streams, ``other``'s batches after ours.

        Raises:
            ValueError: the two were made with different settings.
        """
        ours, theirs = (self.bins, self.momentum), (other.bins, other.momentum)
        if ours != theirs:
            raise ValueError(f"statistics with settings (bins, momentum) {ours} and {theirs} do not add up")
        if not (self.batches and other.batches):
            return self._copy() if self.batches else other._copy()
        merged = self._copy()
        merged.count, merged.batches = self.count + other.count, self.batches + other.batches
        merged.minimum, merged.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        merged.histogram = self.histogram + other.histogram
        merged._recent = self.momentum**other.batches * self._recent + other._recent
        return merged

    @property
    def moving_average(self) -> tuple[float, float]:
        """Exponential moving averages of the batch minima and maxima."""
        low, high = self.momentum**self.batches * self._first + self._recent
        return float(low), float(high)

    def _copy(self) -> "TensorStatistics":
        copy = object.__new__(TensorStatistics)
        copy.__dict__.update(self.__dict__)
        return copy


def activation_range(statistics: TensorStatistics, calibration: Calibration, bits: int = 8) -> tuple[float, float]:
    """Choose the range of an activation.

    Args:
        statistics: what was observed of the tensor.
        calibration: method and its parameters.
        bits: width of the grid that the range is for.

    Returns:
        ``(minimum, maximum)``, finite, for ``activation_grid``; no longer than what was seen and 0.

    Raises:
        ValueError: nothing was observed.
    """
    if statistics.batches == 0:
        raise ValueError("no calibration data reached this tensor; pass at least one sample")
    if calibration.method == "moving_average":
        return statistics.moving_average
    if calibration.method == "percentile":
        return _percentile_range(statistics.histogram, calibration.percentile)
    if calibration.method == "mse" and bits < 16:  # 16-bit steps are so small that cutting values off gains nothing
        return least_squares_range(statistics.histogram, bits)
    if calibration.method == "kl":
        return least_divergence_range(statistics.histogram, bits)
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
