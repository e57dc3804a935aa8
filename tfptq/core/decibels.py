"""Ratios of powers in decibels: 6 dB more is half the error.

Reports, searches and programs all count in these, so that they agree on what a perfect and what a broken result is.
"""

import math

import numpy as np


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two powers.

    Returns:
        Infinity without noise, whatever the signal; -infinity without a signal, or where one of them is not finite.
    """
    if noise == 0.0:
        return math.inf
    if not (math.isfinite(noise) and math.isfinite(signal) and signal):
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def powers(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Signal ``sum r^2`` and noise ``sum (r - q)^2``, float64 ``[2]``; those of several batches add up."""
    return np.array([np.square(values, dtype=np.float64).sum() for values in (expected, expected - found)])


def signal_to_noise(expected: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise ratio in dB of values ``found`` that stand for those ``expected``, both of one shape."""
    return decibels(*powers(expected, found))
