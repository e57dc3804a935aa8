"""Factors for the channels between two layers that make the weights of the second one easier to quantize.

When channel ``k`` between two layers is multiplied by ``t[k]`` in the first layer and divided by it in the second,
``W'[o, k] = W[o, k] / t[k]``, the function stays, and the rounding errors of the second layer change. Their step is
set by the largest weight of a row, and each error is multiplied by the input of its column::

    noise  ~  sum_o max_k (|W[o, k]| / t[k])^2  *  sum_k t[k]^2

with inputs of one size (before the scaling). So a column with large weights should grow in the input, until it costs
more there than it saves. The maximum is taken as a p-norm (``row_norms``). Setting the derivative by ``log t[k]`` to
zero gives

    t[k]^(p+2) = D * sum_o N[o]^(2/p-1) |W[o, k]|^p  /  S,
    N[o] = sum_k (|W[o, k]| / t[k])^p,   S = sum_o N[o]^(2/p),   D = sum_k t[k]^2,

which is iterated; several layers that read the same channels add up in the numerator and in the denominator.

Scaling channels between layers without changing the function is the cross-layer equalization of Nagel et al., arXiv
1906.04721, section 4.1, which levels the ranges of both layers. Here the first layer has a scale for each output
channel, which takes the factors up, so that they serve the second layer alone; the objective above is our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfptq.core.row_norms import ORDER, RowNorms

#: The first do nearly all; the others cost little.
_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Reader:
    """A kernel that reads the channels."""

    magnitudes: np.ndarray  # ``[O, C]``, largest magnitude of the weights of each row at each channel
    others: np.ndarray  # ``[O]``, largest magnitude in each row at inputs beyond these channels
    other_inputs: int = 0  # number of those inputs
    importance: float = 1.0  # how much its noise, relative to its weights, counts


def equalizing_factors(readers: Sequence[Reader], lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Find factors of channels, float64 ``[C]``, under which the expected noise is at most that of all ones.

    Args:
        readers: kernels with a scale for each row (or for parts of it) that read the channels.
        lowest: smallest factor of each channel, ``[C]``, in (0, 1].
        highest: largest factor of each channel, ``[C]``, ``>= 1``.
    """
    factors = start = np.ones(len(lowest))
    noises = [_ReaderNoise(reader) for reader in readers]
    for _ in range(_ITERATIONS):
        parts = [noise.at(factors) for noise in noises]
        wanted = sum(numerator for numerator, _, _ in parts) / sum(denominator for _, denominator, _ in parts)
        # Half of each step, on a logarithmic scale: the full one overshoots.
        factors = np.sqrt(factors * np.clip(wanted ** (1.0 / (ORDER + 2)), lowest, highest))
    before, now = (sum(noise.at(each)[2] for noise in noises) for each in (start, factors))
    return factors if now < before else start


class _ReaderNoise:
    """The noise of one reader, and its part in the fixed point."""

    def __init__(self, reader: Reader):
        self._norms = RowNorms(reader.magnitudes, reader.others)
        self._other_inputs = reader.other_inputs
        rows = np.maximum(self._norms.powers.max(axis=1, initial=0.0), self._norms.others) ** (2.0 / ORDER)
        self._importance = reader.importance / float(rows.sum() * (reader.magnitudes.shape[1] + reader.other_inputs))

    def at(self, factors: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Numerator ``[C]`` and denominator of the fixed point, and the noise."""
        rows, pulls = self._norms.at(factors)
        spread = float(np.sum(factors**2) + self._other_inputs)
        return self._importance * (spread * pulls), self._importance * rows, self._importance * rows * spread
