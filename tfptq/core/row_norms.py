"""The largest weight of each row, smooth in the factors that channels are divided by.

Rounding steps follow the largest weight of a row. Where channel ``k`` of a kernel is divided by ``t[k]``, the square of
the largest weight is taken as a p-norm, which has a derivative:

    max_k (|W[o, k]| / t[k])^2  ~  N[o]^(2/p),      N[o] = sum_k (|W[o, k]| / t[k])^p.
"""

import numpy as np

from tfptq.core.products import threads_for

#: p: a higher one is nearer to the maximum, and takes smaller steps.
ORDER = 8
#: Weights below this share of a kernel's largest count as that share, so that all-zero columns have some factor. Its
#: power of ``ORDER``, 1e-48, still is a normal number in float64.
_SMALLEST_SHARE = 1e-6


class RowNorms:
    """The norms of one kernel, in units of its largest weight."""

    def __init__(self, magnitudes: np.ndarray, others: np.ndarray):
        """Take the magnitudes ``[O, C]`` at each channel, and the largest ``[O]`` at inputs beyond these channels."""
        self.unit = max(float(magnitudes.max(initial=0.0)), float(others.max(initial=0.0))) or 1.0
        #: float64 [O, C], weights to the power of ORDER, and [O], that of the largest at inputs beyond these channels
        self.powers = np.maximum(magnitudes / self.unit, _SMALLEST_SHARE).astype(np.float64) ** ORDER
        self.others = (others / self.unit).astype(np.float64) ** ORDER

    def at(self, factors: np.ndarray) -> tuple[float, np.ndarray]:
        """Sum of the squared norms under factors ``[C]``, and ``sum_o N[o]^(2/p-1) |W[o, k]|^p`` of each channel."""
        with threads_for(1):  # a product with a vector waits for memory: threads only wait for each other as well
            norms = self.powers @ factors**-ORDER + self.others  # N
            return float(np.sum(norms ** (2.0 / ORDER))), norms ** (2.0 / ORDER - 1.0) @ self.powers
