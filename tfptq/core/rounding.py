"""Choose the integer codes of a weight: one interface for every rounding method.

* ``nearest``: the next code to each weight. The data plays no part.
* ``coordinate``: sequential rounding with error feedback, then coordinate descent (``coordinate_rounding``).
* ``attention``: Attention Round, arXiv 2207.03088 (``attention_round``).
* ``adaround``: AdaRound, arXiv 2004.10568 (``adaround``), for comparison.

All minimise the quadratic of ``rounding_problem`` for given scales. Whatever the method, a row whose objective came
out worse than nearest's gets nearest's codes. Where scales move, what is never worse is the sum of the objectives of
the rows that share them.

``gains`` are multiples of the scales that are tried with the codes that coordinate descent finds for each. Scales
that suit rounding to nearest are not those that suit rounded codes; and where an output has a few inputs only, as in
a depthwise layer, the lattice is so coarse that some other scale fits much better. Rows that share a scale decide
together, by the sum of their objectives; then they try multiples between the best one and its neighbours.

``refine_scales`` then improves the scales for the codes found, and the codes for the new scales, in turn. For given
codes the objective is a small quadratic in the scales, so the best ones are the solution of a linear system:

* ``float`` blocks: ``H`` unknowns for each row of blocks, coupled through A.
* ``integer`` and ``shift`` blocks: one unknown base for each row of blocks (or for the layer); the integers stay.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfptq.config.parts import ROUNDING_METHODS
from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.core.coordinate_rounding import CoordinateOptions, coordinate_codes, descend
from tfptq.core.rounding_problem import RoundingProblem, rounding_problem
from tfptq.core.statistics import CentredStatistics

#: How often the step between multiples of the scales is halved around the best one.
_HALVINGS_OF_GAINS = 2
#: Sweeps of coordinate descent after each refinement of the scales.
_REFINEMENT_SWEEPS = 5
#: Systems for scales with a larger condition number are not solved: of 16 digits of float64, 4 would be left.
_LARGEST_CONDITION = 1e12


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
    refine_scales: int = 0,
    seed: int = 0,
) -> QuantizedWeight:
    """Round a weight so that the layer's output error is small.

    Args:
        view: float weights ``[O, I, T]``.
        scales: scales of the blocks of ``view``.
        bits: width of the codes.
        statistics: of the layer's quantized inputs and float outputs.
        method: one of ``ROUNDING_METHODS``.
        options: ``CoordinateOptions``, ``AttentionRoundOptions`` or ``AdaRoundOptions`` for that method; None for
            its defaults.
        damping: pull towards the float weights, in units of the mean input power.
        gains: positive multiples of the scales to try, evenly spaced; not with ``"nearest"``.
        refine_scales: how often to refine the scales and then the codes; not with ``"nearest"``.
        seed: for methods that draw random numbers.

    Returns:
        Codes and scales whose damped objective is, for each row, at most that of rounding to nearest; with ``gains`` or
        ``refine_scales``, for the rows together that share a scale.

    Raises:
        ValueError: unknown method, options of another one, or arguments that do not fit together.
    """
    if len(gains) and min(gains) <= 0.0:
        raise ValueError(f"gains has {min(gains)}; multiples of scales must be positive")
    problem = rounding_problem(view, scales, bits, statistics, damping)
    codes = problem.nearest()
    if method != "nearest":
        if len(gains):
            problem, codes = _search_gains(problem, gains)
        codes = _keep_better(problem, codes, _codes(problem, method, options, seed))
        for _ in range(refine_scales):
            problem, codes = _refine(problem, codes)
    return QuantizedWeight(codes.reshape(view.shape).astype(np.int8), problem.scales, bits)


def _codes(problem: RoundingProblem, method: str, options: Any, seed: int) -> np.ndarray:
    if method == "coordinate":
        return coordinate_codes(problem, _options(method, options, CoordinateOptions))
    if method == "attention":
        from tfptq.core.attention_round import AttentionRoundOptions, attention_codes  # imports TensorFlow

        return attention_codes(problem, _options(method, options, AttentionRoundOptions), seed)
    if method == "adaround":
        from tfptq.core.adaround import AdaRoundOptions, adaround_codes  # imports TensorFlow

        return adaround_codes(problem, _options(method, options, AdaRoundOptions))
    raise ValueError(f"rounding is {method!r}; it must be one of {', '.join(map(repr, ROUNDING_METHODS))}")


def _options(method: str, options: Any, kind: type) -> Any:
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise ValueError(f"options of rounding {method!r} are a {type(options).__name__}; pass {kind.__name__}")
    return options


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


def _refine(problem: RoundingProblem, codes: np.ndarray) -> tuple[RoundingProblem, np.ndarray]:
    """One closed-form step of the scales, then coordinate descent of the codes; never worse."""
    moved = problem.with_scales(_refined_scales(problem, codes))
    if moved.objective(codes).sum() > problem.objective(codes).sum():
        return problem, codes
    return moved, descend(moved, codes, _REFINEMENT_SWEEPS)


def _refined_scales(problem: RoundingProblem, codes: np.ndarray) -> BlockScales:
    """Best float block scales, or best bases of integer and shift blocks, for given codes."""
    scales, (outputs, inputs, taps) = problem.scales, problem.view_shape
    m, n = scales.block_shape
    row_block = np.arange(outputs) // m  # [O] -> v
    if scales.kind == "float":
        column_block = np.repeat(np.arange(inputs) // n, taps)  # [K] -> h
        values = _solve(problem, codes, row_block, column_block, scales.values())
        return dataclasses.replace(scales, base=np.ones(1, np.float32), factors=values)
    rows = len(scales.factors)
    unit = problem.scale / np.broadcast_to(scales.base, rows)[row_block].reshape(codes.shape[:2])[:, :, None]
    base_of_row = row_block if len(scales.base) == rows else np.zeros_like(row_block)
    one_column = np.zeros(codes.shape[2], np.int64)
    values = _solve(problem, codes * unit, base_of_row, one_column, scales.base[:, None])
    return dataclasses.replace(scales, base=values[:, 0])


def _solve(
    problem: RoundingProblem, codes: np.ndarray, row_block: np.ndarray, column_block: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Scales that minimise the objective for given codes.

    Args:
        problem: the quadratic; its own scales do not count.
        codes: ``[G, P, K]``.
        row_block: ``[O]`` in 0..V-1, the rows that share scales.
        column_block: ``[K]`` in 0..H-1, the columns that do.
        start: scales ``[V, H]`` that row blocks keep whose system is singular or whose solution is not positive.

    Returns:
        float32 ``[V, H]``.
    """
    rows, columns = start.shape
    member = np.equal.outer(column_block, np.arange(columns)).astype(np.float64)  # [K, H]
    linear = np.zeros((rows, columns))
    np.add.at(linear, row_block, ((codes * problem.cross) @ member).reshape(-1, columns))
    quadratic = np.zeros((rows, columns, columns))
    for h in range(columns):
        part = (codes * member[:, h]) @ problem.gram * codes
        np.add.at(quadratic[:, h], row_block, (part @ member).reshape(-1, columns))
    values = start.astype(np.float64)
    dead = np.diagonal(quadratic, axis1=1, axis2=2) <= 0.0  # blocks of zero codes: any scale will do
    quadratic[dead[:, :, None] & np.eye(columns, dtype=bool)] = 1.0
    linear[dead] = values[dead]
    regular = np.linalg.cond(quadratic) < _LARGEST_CONDITION
    values[regular] = np.linalg.solve(quadratic[regular], linear[regular][:, :, None])[:, :, 0]
    bad = ~(values > 0.0).all(axis=1)
    values[bad] = start[bad]
    return values.astype(np.float32)
