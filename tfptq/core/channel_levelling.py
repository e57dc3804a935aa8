"""Factors that give the channels of an activation more even shares of its 8-bit grid.

A tensor has one grid for all its channels: one whose values stay small uses few of the codes. When channel ``k`` is
multiplied by ``t[k] >= 1`` in the layers before and divided by it in the layers that read it, it uses more of them.
With ``d = step^2 / 12`` the rounding noise of the tensor, ``P[k]`` the mean square of channel ``k`` times the taps,
and weights of 8 bits, the expected noise of a layer that reads it is

    J(t) = d * sum_ok (W[o, k] / t[k])^2  +  q * sum_o max_k (|W[o, k]| / t[k])^2 * (sum_k t[k]^2 P[k] + P_other),

``q = 1 / (12 * 127^2)``: the first term falls with every factor, the second may rise. Layers count in relation to the
power of their outputs. A depthwise layer has a scale for each channel, so that its second term does not change.

The maximum is taken as a p-norm (``row_norms``). With ``N[o] = sum_k (|W[o, k]| / t[k])^p``, the derivative by
``log t[k]`` is zero where what a factor saves is what it costs:

    d sum_o W[o, k]^2 / t[k]^2 + q P sum_o N[o]^(2/p-1) (|W[o, k]| / t[k])^p  =  q sum_o N[o]^(2/p) t[k]^2 P[k],

which is iterated. Moving scale between layers is the cross-layer equalization of Nagel et al., arXiv 1906.04721,
section 4.1, which levels the ranges of weights; the objective, which counts the activations, is our own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfptq.core.row_norms import ORDER, RowNorms

#: Seldom reached: see ``_PATIENCE``.
_MOST_ITERATIONS = 100
#: The iteration ends when so many steps in a row have not lowered the noise by more than this share.
_PATIENCE, _LEAST_PROGRESS = 3, 1e-4
#: Noise of weights of 8 bits in units of the largest of their row.
_WEIGHT_NOISE = 1.0 / (12.0 * 127.0**2)
#: Largest change of a factor in one iteration: a factor that costs nothing would go to its limit at once, while the
#: noise that it is weighed against still depends on all others.
_LARGEST_STEP = 1.6


@dataclass(frozen=True, eq=False)
class GridReader:
    """A layer that reads the channels."""

    energy: np.ndarray  # float ``[C]``, sum of the squared weights that read each channel
    magnitudes: np.ndarray | None  # float ``[O, C]``, largest magnitude over taps; None for a depthwise layer
    others: np.ndarray  # float ``[O]``, largest magnitude in each row at inputs beyond these channels
    power: np.ndarray  # float ``[C]``, mean square of each channel, times the taps that read it
    other_power: float  # the same, summed over the inputs beyond these channels
    rounding: float  # ``step^2 / 12`` of the grid of the tensor that it reads
    signal: float  # power of its output, up to a factor that all readers share


def levelling_factors(readers: Sequence[GridReader], highest: np.ndarray) -> np.ndarray:
    """Factors of channels, float64 ``[C]``, between 1 and the ``highest`` of each channel."""
    terms = [_Terms(reader) for reader in readers if reader.signal > 0.0]
    factors = best = np.ones(len(highest))
    least, idle = math.inf, 0
    for _ in range(_MOST_ITERATIONS if terms else 0):
        saves, costs, noise = (sum(parts) for parts in zip(*(term.at(factors) for term in terms), strict=True))
        idle = 0 if noise < (1.0 - _LEAST_PROGRESS) * least else idle + 1
        if noise < least:
            best, least = factors, noise
        if idle == _PATIENCE:
            break
        # A factor that costs nothing grows to its limit.
        ratio = np.divide(saves, costs, out=np.full(len(highest), np.inf), where=costs > 0.0)
        growth = np.clip(ratio ** (0.5 / (ORDER + 2)), 1.0 / _LARGEST_STEP, _LARGEST_STEP)
        factors = np.clip(factors * growth, 1.0, highest)
    return best


def least_noise(readers: Sequence[GridReader], highest: np.ndarray) -> float:
    """A bound that ``J`` cannot fall below, without a search: each part of it at its own best factors."""
    total = 0.0
    for reader in readers:
        if reader.signal > 0.0:
            noise = reader.rounding * float(np.sum(reader.energy / highest**2))
            if reader.magnitudes is not None:
                rows = np.maximum((reader.magnitudes / highest).max(axis=1), reader.others)
                power = float(reader.power.sum()) + reader.other_power
                noise += _WEIGHT_NOISE * float(np.sum(np.square(rows, dtype=np.float64))) * power
            total += noise / reader.signal
    return total


def expected_noise(readers: Sequence[GridReader], factors: np.ndarray) -> float:
    """``J`` under factors ``[C]``, summed over the readers, each in relation to the power of its output."""
    return sum(_Terms(reader).at(factors)[2] for reader in readers if reader.signal > 0.0)


class _Terms:
    """The noise of one reader and its derivatives."""

    def __init__(self, reader: GridReader):
        self._rounding = reader.rounding / reader.signal * reader.energy.astype(np.float64)
        self._norms = None
        if reader.magnitudes is None:
            return
        self._norms = RowNorms(reader.magnitudes, reader.others)
        share = _WEIGHT_NOISE * self._norms.unit**2 / reader.signal
        self._power, self._other_power = share * reader.power, share * reader.other_power

    def at(self, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """What growing each channel saves and costs, both ``[C]``, and the noise."""
        rounding = self._rounding / factors**2
        if self._norms is None:
            return rounding, np.zeros_like(rounding), float(rounding.sum())
        rows, pulls = self._norms.at(factors)
        power = factors**2 * self._power
        whole = float(power.sum()) + self._other_power
        saves = whole * pulls * factors**-ORDER
        return rounding + saves, rows * power, float(rounding.sum()) + rows * whole
