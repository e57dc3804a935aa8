"""Mean and standard error of numbers that come in parts."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Moments of one number for each sample; ``a + b`` are those of both.

    Attributes:
        count: number of samples.
        mean: mean of the numbers.
        scatter: sum of the squared differences from it.
    """

    count: int
    mean: float
    scatter: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Of values ``[samples]``."""
        mean = float(values.mean())
        return cls(len(values), mean, float(np.square(values - mean).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        """Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"."""
        count, apart = self.count + other.count, other.mean - self.mean
        scatter = self.scatter + other.scatter + apart**2 * self.count * other.count / count
        return Moments(count, self.mean + apart * other.count / count, scatter)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean of independent values; None of a single one."""
        return math.sqrt(self.scatter / (self.count - 1) / self.count) if self.count > 1 else None
