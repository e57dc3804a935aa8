"""Round a weight: one function for every rounding method.

All methods minimise the quadratic of ``problem`` for given scales. Whatever the method, a row whose objective came out
worse than nearest's gets nearest's codes. Where scales move, what is never worse is the sum of the objectives of the
rows that share them.

``gains`` are multiples of the scales that are tried with the codes that coordinate descent finds for each. Scales
that suit rounding to nearest are not those that suit rounded codes; and where an output has a few inputs only, as in
a depthwise layer, the lattice is so coarse that some other scale fits much better. Rows that share a scale decide
together, by the sum of their objectives; then they try multiples between the best one and its neighbours.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfptq.base.arguments import one_of
from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.core.rounding.methods import ROUNDING_METHODS
from tfptq.core.rounding.methods.coordinate import coordinate_codes
from tfptq.core.rounding.problem import RoundingProblem, rounding_problem
from tfptq.core.statistics import CentredStatistics

#: How often the step between multiples of the scales is halved around the best one.
_HALVINGS_OF_GAINS = 2


def round_weight(
    view: np.ndarray,
    scales: BlockScales,
    bits: int,
    statistics: CentredStatistics,
    method: str = "attention",
    options: Any = None,
    *,
    damping: float = 0.2,
    gains: Sequence[float] = (),
    symmetric: bool = False,
) -> QuantizedWeight:
    """Round a weight so that the layer's output error is small.

    Args:
        view: float weights ``[O, I, T]``.
        scales: of the blocks of ``view``.
        bits: width of the codes.
        statistics: of the layer's quantized inputs and float outputs.
        method: one of ``ROUNDING_METHODS``.
        options: an object of the options class of the method; None for its defaults.
        damping: pull towards the float weights, in units of the mean input power.
        gains: positive multiples of the scales to try, evenly spaced; not where the method does not learn.
        symmetric: leave the code out that has no mirror image.

    Returns:
        Codes and scales whose damped objective is, for each row (with ``gains``, for the rows together that share a
        scale), at most that of rounding to nearest.
    """
    one_of("rounding", method, ROUNDING_METHODS)
    chosen = ROUNDING_METHODS[method]
    options = chosen.checked(options)
    if len(gains) and min(gains) <= 0.0:
        raise ValueError(f"gains has {min(gains)}; multiples of scales must be positive")
    problem = rounding_problem(view, scales, bits, statistics, damping, symmetric)
    codes = problem.nearest()
    if chosen.learns:
        if len(gains):
            problem, codes = _search_gains(problem, gains)
        codes = _keep_better(problem, codes, chosen.codes(problem, options))
    return QuantizedWeight(codes.reshape(view.shape).astype(np.int8), problem.scales, bits)


def _keep_better(problem: RoundingProblem, codes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Row by row the codes with the smaller objective; ``codes`` where they are equal."""
    better = problem.objective(other) < problem.objective(codes)
    return np.where(better[:, :, None], other, codes)


def _search_gains(problem: RoundingProblem, gains: Sequence[float]) -> tuple[RoundingProblem, np.ndarray]:
    """Best multiple of the scales of each group of rows that share one, and its codes; 1 is always tried."""
    scales, outputs = problem.scales, problem.view_shape[0]
    rows = scales.free_rows
    group = np.arange(outputs) // scales.block_shape[0] if rows > 1 else np.zeros(outputs, np.int64)  # [O]
    least, best_gains, best = np.full(rows, np.inf), np.ones(rows), np.zeros(problem.weight.shape)
    trials = [np.full(rows, gain) for gain in (1.0, *(gain for gain in gains if not math.isclose(gain, 1.0)))]
    step = (max(gains) - min(gains)) / max(len(gains) - 1, 1)
    for _ in range(_HALVINGS_OF_GAINS + 1):
        for gain in trials:
            trial = problem.with_scales(scales.scaled(gain))
            codes = _keep_better(trial, trial.nearest(), coordinate_codes(trial))
            error = np.bincount(group, trial.objective(codes).reshape(-1), rows)
            better = error < least
            least, best_gains = np.where(better, error, least), np.where(better, gain, best_gains)
            best = np.where(better[group].reshape(codes.shape[:2])[:, :, None], codes, best)
        step /= 2.0
        nearer = np.where(best_gains > step, best_gains - step, best_gains)  # scales are positive
        trials = [nearer, best_gains + step] if step else []
    return problem.with_scales(scales.scaled(best_gains)), best
