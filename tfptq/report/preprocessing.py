"""Whether samples look like those of training to a normalization, and which common preprocessing would make them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfptq.graph import InputStatistics, model_outputs
from tfptq.report.outcome import Samples


@dataclass(frozen=True)
class Correction:
    """A preprocessing ``factor * x + offset`` that may be missing; for any number of channels if ``channels`` is None.

    ``advice`` says it in words.
    """

    advice: str
    factor: float | tuple[float, ...]
    offset: float | tuple[float, ...] = 0.0
    channels: int | None = None

    def fits(self, samples: np.ndarray) -> bool:
        """Whether it can be applied."""
        return self.channels is None or (samples.ndim > 1 and samples.shape[-1] == self.channels)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The samples, float32, as they may have to be."""
        return samples * np.asarray(self.factor, np.float32) + np.asarray(self.offset, np.float32)


_MEANS, _DEVIATIONS = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet, for 0..1


def _imagenet(advice: str, largest: float) -> Correction:
    return Correction(advice, tuple(1 / (largest * _DEVIATIONS)), tuple(-_MEANS / _DEVIATIONS), channels=3)


CORRECTIONS = (
    Correction("divide them by 255", 1 / 255),
    Correction("multiply them by 255", 255.0),
    Correction("scale them to -1..1 by x / 127.5 - 1", 1 / 127.5, -1.0),
    Correction("scale them to 0..255 by (x + 1) * 127.5", 127.5, 127.5),
    Correction("scale them to -1..1 by 2 * x - 1", 2.0, -1.0),
    Correction("scale them to 0..1 by (x + 1) / 2", 0.5, 0.5),
    _imagenet("normalize x / 255 by the means and deviations of ImageNet's channels", 255.0),
    _imagenet("normalize them by the means and deviations of ImageNet's channels", 1.0),
)


def divergence(known: InputStatistics, batches: Iterable[Samples], correction: Correction | None = None) -> float:
    """How far what a normalization reads is from what it read in training.

    It is the median over channels of the Kullback-Leibler divergence of two normal distributions, that of the samples
    from that of training: 0 if both are equal, about 0.5 for twice the deviation.

    Returns:
        Infinity for a correction that does not apply, or that leaves no channel to judge: those that vary by less than
        the layer's epsilon count for nothing. 0 without a correction where there is none.
    """
    total, squares, count = np.zeros(()), np.zeros(()), 0
    for batch in batches:
        samples = batch[known.input]
        if correction is not None:
            if not correction.fits(samples):
                return math.inf
            samples = correction(samples)
        (values,) = model_outputs(known.model, {**batch, known.input: samples})
        rows = np.moveaxis(values.astype(np.float64), known.axis, -1).reshape(-1, len(known.mean)) - known.mean
        total, squares, count = total + rows.sum(axis=0), squares + np.square(rows).sum(axis=0), count + len(rows)
    shift = total / max(count, 1)
    variance = np.maximum(squares / max(count, 1) - np.square(shift), 0.0)
    alive = np.maximum(known.variance, variance) > known.epsilon
    if not count or not alive.any():
        return 0.0 if correction is None else math.inf
    expected = known.variance[alive] + known.epsilon
    ratio = (variance[alive] + known.epsilon) / expected
    return float(np.median(0.5 * (ratio + np.square(shift[alive]) / expected - 1.0 - np.log(ratio))))
