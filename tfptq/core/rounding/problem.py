"""The quadratic that learned rounding minimises, for one layer.

Given the scales, a layer's output error (see ``statistics``) falls apart into one quadratic for each output
channel, over codes ``q`` and with ``ŵ = S * q``::

    f(ŵ) = ŵ A ŵᵀ - 2 ŵ·c          low <= q <= high

``A`` is the covariance of the layer's quantized inputs and ``c`` that of its float output with them. What is
minimised is the *damped* quadratic, which also keeps to the float weights ``w``::

    f(ŵ) + λ |ŵ - w|²              λ = damping * mean(diag A)

Directions that few samples excite would otherwise be fitted to noise; inputs that are always 0 are rounded to
nearest.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np

from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import BlockScales
from tfptq.core.statistics import SMALL, CentredStatistics

#: Damping at least used, so that A is positive definite in float64 whatever the data.
LEAST_DAMPING = 1e-8
#: Relative error of sums of float32 products, with room to spare.
ROUNDING_NOISE = 1e-6


@dataclass(frozen=True, eq=False)
class RoundingProblem:
    """One layer's quadratic, in the groups of ``statistics``, in a unit of its own. Arrays are float64."""

    weight: np.ndarray  # w, [G, P, K]
    view_shape: tuple[int, int, int]  # (O, I, T) of the canonical view
    scales: BlockScales  # of the blocks of that view
    code_range: tuple[int, int]
    gram: np.ndarray  # damped A, [G, K, K]
    cross: np.ndarray  # damped C, [G, P, K]

    def objective(self, codes: np.ndarray) -> np.ndarray:
        """Damped ``f`` of each row, ``[G, P]``, above its value at the float weights; codes are ``[G, P, K]``.

        Differences to the float weights are small, so little precision is lost to cancellation.
        """
        error = self.scale * codes - self.weight
        return np.sum((error @ self.gram - 2.0 * self.residual) * error, axis=2)

    @functools.cached_property
    def scale(self) -> np.ndarray:
        """Scale S of each weight, ``[G, P, K]``."""
        scale = np.broadcast_to(self.scales.expand(*self.view_shape[:2]), self.view_shape)
        return scale.reshape(self.weight.shape).astype(np.float64)

    def with_scales(self, scales: BlockScales) -> "RoundingProblem":
        """The quadratic of the same layer under other scales."""
        return dataclasses.replace(self, scales=scales)

    @property
    def ratio(self) -> np.ndarray:
        """Float weights in units of their scales, ``[G, P, K]``."""
        return self.weight / self.scale

    @property
    def unit(self) -> np.ndarray:
        """What a step of one code adds to the objective, ``[G, P]``: the mean over the weights of a row."""
        return np.mean(self.scale**2 * np.diagonal(self.gram, axis1=1, axis2=2)[:, None, :], axis=2)

    @property
    def residual(self) -> np.ndarray:
        """``C - W A``, ``[G, P, K]``: half the downhill direction at the float weights."""
        return self.cross - self.weight @ self.gram

    def nearest(self) -> np.ndarray:
        """Codes next to the float weights, float64 ``[G, P, K]``."""
        return np.clip(np.rint(self.ratio), *self.code_range)


def rounding_problem(
    view: np.ndarray, scales: BlockScales, bits: int, statistics: CentredStatistics, damping: float = 0.2
) -> RoundingProblem:
    """Set up the quadratic of a layer; arguments are as of ``round_weight``."""
    if damping < 0.0:
        raise ValueError(f"damping is {damping}; it must not be negative")
    if not np.isfinite(view).all():
        raise ValueError("the weights to be rounded are not all finite")
    weight = statistics.group_view(np.asarray(view, np.float64))
    power = np.diagonal(statistics.gram, axis1=1, axis2=2).mean(axis=1)  # [G]
    # Sums of float32 products have errors; as a matrix, the largest eigenvalue may be this share of the trace of E xxᵀ.
    variances = np.diagonal(statistics.gram, axis1=1, axis2=2)  # [G, K]
    traces = (np.abs(variances) + np.square(statistics.mean_x)).sum(axis=1)  # [G]
    # Constant inputs, such as taps that see nothing but padding, have the same error in every entry: it adds up.
    negative = -2.0 * np.minimum(variances, 0.0).sum(axis=1)
    floor = np.maximum.reduce([np.full_like(power, LEAST_DAMPING * power.mean()), ROUNDING_NOISE * traces, negative])
    floor[floor <= 0.0] = 1.0
    pull = np.maximum(max(damping, LEAST_DAMPING) * power, floor)[:, None, None]
    gram = statistics.gram + pull * np.eye(weight.shape[2])
    cross = statistics.cross + pull * weight
    # The layer as a whole may be in any unit. Codes are learned in float32, which very small powers would not fit into.
    largest = float(np.diagonal(gram, axis1=1, axis2=2).max())
    if largest < SMALL:
        exponent = -math.frexp(largest)[1]
        gram, cross = np.ldexp(gram, exponent), np.ldexp(cross, exponent)
    return RoundingProblem(weight, view.shape, scales, weight_code_range(bits), gram, cross)
