"""Search for the block scales with the least layer output error (PTQ-SL, arXiv 2110.07809).

**Float scales.** Candidates for a block are ``(alpha + i (beta - alpha)/n) S0``, ``S0`` its max-abs scale, and 1.0.
Coordinate descent goes over the columns ``h`` of blocks; all rows ``v`` of blocks move at once, because a row block
only moves its own outputs. The candidates are tried coarse to fine: every fourth one, then the neighbours of each
block's best.

**Integer and shift scales.** ``S[v, h] = s_v * r[v, h]`` with ``r`` an integer or a power of two; ``r`` times
any code stays within 127, so that the layer is exactly an int8 one. From the best float scales:

1. ``s_v``: for each candidate every block takes the multiplier with the least error while its neighbours keep their
   float scales; those with the least sums go on. A thorough search tries more candidates, and takes those that a pass
   of step 2 leaves with the least errors.
2. ``r``: coordinate descent over columns with the true errors.
3. ``s_v`` again for fixed ``r``, then ``r`` again; a thorough search refines both twice more. Each row block keeps the
   best of its results.

Every row block starts at the better one of the max-abs and the weight-MSE scales, and in the end takes its start back
if the search, which runs in float32, is not better in float64: the result is never worse than either start.
"""

from collections.abc import Sequence

import numpy as np

from tfptq.core.affine import SCALE_KINDS, multipliers_of
from tfptq.core.block_errors import OBJECTIVES, BlockErrors
from tfptq.core.blocks import BlockScales, block_maxima, float_scales
from tfptq.core.scale_multiples import largest_alive, nearest_multiplier, scales_of_multiples
from tfptq.core.weight_scales import max_abs_scales, start_scales

#: Candidates of a float block scale, as multiples of max-abs: alpha, beta and n of the paper.
ALPHA, BETA, STEPS = 0.3, 1.2, 100
#: Every so many candidates are tried first.
_STRIDE = 4
#: Candidates of ``s_v``, and how many of them go through the whole search. They are multiples of the one that gives the
#: row's largest block the largest multiplier.
_BASES, _FINALISTS = np.geomspace(0.6, 2.5, 32), 4
#: The same of a thorough search, and how many get one pass. With nearest rounding, the error jumps from candidate to
#: candidate, so that it pays to try many; docs/benchmarks.md ("Kinds of block scale") says how near to float they come.
_MANY_BASES, _ENTRANTS, _MANY_FINALISTS = np.geomspace(0.6, 2.5, 94), 48, 8
#: Multiples of ``s_v`` tried while the multipliers stay.
_FINE_STEPS = np.linspace(0.97, 1.03, 25)
_BASE_STEPS = np.concatenate([np.linspace(0.7, 0.95, 6), np.linspace(0.96, 1.04, 9), np.linspace(1.05, 1.2, 4)])

#: What the search must gain on its start, relative. A row of one weight has the same cosine at any scale, even one that
#: clips the weight to a third: no rounding error of the cosine may choose it.
_MARGIN = 1e-9


def search_scales(
    view: np.ndarray,
    gram: np.ndarray,
    block_shape: tuple[int, int],
    bits: int,
    kind: str = "float",
    cross: np.ndarray | None = None,
    objective: str = "output_error",
    sweeps: int = 2,
    allowed: Sequence[int] | None = None,
    thorough: bool = False,
) -> BlockScales:
    """Block scales with the least layer output error under nearest rounding.

    Args:
        view: float weight ``[O, I, T]``.
        gram: covariance A of the layer's inputs, ``[G, K, K]`` for ``G`` groups of ``K = I*T`` inputs, or
            ``[K, K]``. Depthwise layers have a group for each channel.
        block_shape: ``(m, n)`` in channels.
        bits: width of the codes.
        kind: ``"float"``, ``"integer"`` or ``"shift"``.
        cross: covariance C of the float output with the inputs, ``[G, O/G, K]``; None if they saw the same inputs.
        objective: ``"output_error"`` or ``"cosine"``.
        sweeps: passes of coordinate descent.
        allowed: the only multipliers of integer scales; None for all.
        thorough: whether integer and shift scales are searched for longer: worth it with nearest rounding, not where
            rounding is learned afterwards.

    Returns:
        Scales that are, for every row block, at least as good as max-abs and weight-MSE ones of that kind.

    Raises:
        ValueError: unknown kind or objective, or arrays whose shapes do not fit.
    """
    gram = gram[None] if gram.ndim == 2 else gram
    _check(view, gram, cross, kind, objective)
    arguments = (view, gram, cross, block_shape, bits, objective)
    starts = start_scales(view, block_shape, bits, kind, allowed)
    exact = BlockErrors(*arguments, dtype=np.float64)
    start = _rowwise_best(starts, exact)
    unrestricted = start if kind == "float" else _rowwise_best(start_scales(view, block_shape, bits, "float"), exact)
    errors = BlockErrors(*arguments)
    errors.set_scales(unrestricted.values())
    largest = max_abs_scales(view, block_shape, bits).values()
    found = float_scales(_descend_float(errors, unrestricted.values(), largest, sweeps), block_shape)
    if kind != "float":
        alive = block_maxima(view, block_shape) > 0.0
        multipliers = multipliers_of(kind, bits, allowed)
        found = _search_multiples(errors, found.values(), alive, kind, block_shape, multipliers, sweeps, thorough)
    return _rowwise_best([start, found], exact, _MARGIN)


def _check(view: np.ndarray, gram: np.ndarray, cross: np.ndarray | None, kind: str, objective: str) -> None:
    if kind not in SCALE_KINDS:
        raise ValueError(f"scale kind is {kind!r}; it must be one of {', '.join(map(repr, SCALE_KINDS))}")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}; it must be one of {', '.join(map(repr, OBJECTIVES))}")
    outputs, inputs, taps = view.shape
    columns = inputs * taps
    groups = gram.shape[0]
    if gram.shape != (groups, columns, columns) or outputs % groups:
        raise ValueError(f"a Gram matrix of shape {gram.shape} does not fit a weight view {view.shape} [O, I, T]")
    if cross is not None and cross.shape != (groups, outputs // groups, columns):
        raise ValueError(f"cross terms of shape {cross.shape} do not fit a weight view {view.shape} [O, I, T]")


def _rowwise_best(choices: list[BlockScales], errors: BlockErrors, margin: float = 0.0) -> BlockScales:
    """For each row block the scales with the least objective: the first, unless others gain more than a margin.

    Args:
        choices: all of one kind and block shape.
        errors: gives the objective.
        margin: part of the first one's objective.
    """
    costs = np.stack([errors.row_objective(scales.values()) for scales in choices])
    costs[0] -= margin * np.abs(costs[0])
    best = costs.argmin(axis=0)  # [V]
    rows = np.arange(len(best))
    factors = np.stack([scales.factors for scales in choices])[best, rows]
    base = choices[0].base
    if choices[0].kind != "float":
        base = np.stack([scales.base for scales in choices])[best, rows]
    return BlockScales(choices[0].kind, base, factors, choices[0].block_shape)


def _descend_float(errors: BlockErrors, values: np.ndarray, largest: np.ndarray, sweeps: int) -> np.ndarray:
    """Coordinate descent over columns; returns float32 ``[V, H]``."""
    values = values.copy()
    factors = (ALPHA + np.arange(STEPS + 1) * (BETA - ALPHA) / STEPS).astype(np.float32)
    coarse = np.arange(0, STEPS + 1, _STRIDE)
    near = np.concatenate([np.arange(-_STRIDE + 1, 0), np.arange(1, _STRIDE)])
    columns = values.shape[1]
    for _ in range(sweeps if columns > 1 else 1):
        before = values.copy()
        for h in range(columns):
            first = np.append(factors[coarse], np.float32(1.0))[:, None] * largest[:, h]
            costs = errors.column_costs(h, first)
            center = coarse[costs[: len(coarse)].argmin(axis=0)]  # [V]
            second = factors[np.clip(center + near[:, None], 0, STEPS)] * largest[:, h]
            costs = np.concatenate([errors.column_costs(h, second)[:-1], costs])
            candidates = np.concatenate([second, first, values[None, :, h]])
            _take_best(errors, values, h, candidates, costs)
        if np.array_equal(values, before):
            break
    return values


def _take_best(
    errors: BlockErrors, values: np.ndarray, h: int, candidates: np.ndarray, costs: np.ndarray
) -> np.ndarray:
    """Move one column to its best candidates; the current one (the last) wins ties. Returns the choice ``[V]``."""
    best = len(costs) - 1 - costs[::-1].argmin(axis=0)
    values[:, h] = candidates[best, np.arange(values.shape[0])]
    errors.set_column(h, values[:, h])
    return best


def _search_multiples(
    errors: BlockErrors,
    values: np.ndarray,
    alive: np.ndarray,
    kind: str,
    block_shape: tuple[int, int],
    multipliers: np.ndarray,
    sweeps: int,
    thorough: bool,
) -> BlockScales:
    """Integer or shift scales near the float scales ``[V, H]``, which ``errors`` has taken."""
    if values.shape[1] == 1:
        return scales_of_multiples(kind, values[:, 0], np.ones_like(values), block_shape)
    largest = largest_alive(values, alive) / multipliers[-1]
    bases = _best_bases(errors, values, largest * (_MANY_BASES if thorough else _BASES)[:, None], multipliers)
    if thorough:
        bases = _best_after_a_pass(errors, values, bases[:_ENTRANTS], multipliers)
    finished = []
    for base in bases[: _MANY_FINALISTS if thorough else _FINALISTS]:
        index = nearest_multiplier(values / base[:, None], multipliers)
        index = _descend_multiples(errors, base, index, multipliers, sweeps)
        for steps in (_BASE_STEPS, _FINE_STEPS, _FINE_STEPS) if thorough else (_BASE_STEPS,):
            base = _refine_base(errors, base, multipliers[index], steps)
            index = _descend_multiples(errors, base, index, multipliers, sweeps)
        finished.append(scales_of_multiples(kind, base, multipliers[index], block_shape))
    return _rowwise_best(finished, errors)


def _near_indices(index: np.ndarray, reach: int, multipliers: np.ndarray) -> np.ndarray:
    """Indices ``[n, V]`` around ``index`` ``[V]``."""
    return np.clip(index + np.arange(-reach, reach + 1)[:, None], 0, len(multipliers) - 1)


def _best_bases(errors: BlockErrors, values: np.ndarray, bases: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Bases ``[n, V]``, the best first, by the sums over the blocks of their errors at the best multiplier each."""
    total = np.zeros_like(bases)
    for h in range(values.shape[1]):
        near = [
            _near_indices(nearest_multiplier(values[:, h] / choice, multipliers), 1, multipliers) for choice in bases
        ]
        candidates = multipliers[np.stack(near)] * bases[:, None, :]  # [n, 3, V]
        costs = errors.column_costs(h, candidates.reshape(-1, bases.shape[1]))[:-1]
        total += costs.reshape(candidates.shape).min(axis=1)
    return np.take_along_axis(bases, total.argsort(axis=0, kind="stable"), axis=0)


def _best_after_a_pass(
    errors: BlockErrors, values: np.ndarray, bases: np.ndarray, multipliers: np.ndarray
) -> np.ndarray:
    """Bases ``[n, V]``, the best first, by their errors after a pass over the columns."""
    costs = []
    for base in bases:
        index = nearest_multiplier(values / base[:, None], multipliers)
        index = _descend_multiples(errors, base, index, multipliers, 1)
        costs.append(errors.row_objective(base[:, None] * multipliers[index]))
    return np.take_along_axis(bases, np.argsort(costs, axis=0, kind="stable"), axis=0)


def _descend_multiples(
    errors: BlockErrors, base: np.ndarray, index: np.ndarray, multipliers: np.ndarray, sweeps: int
) -> np.ndarray:
    """Coordinate descent over columns for fixed bases; returns the new indices ``[V, H]``."""
    index = index.copy()
    values = base[:, None] * multipliers[index]
    errors.set_scales(values)
    for h in list(range(index.shape[1])) * sweeps:
        near = _near_indices(index[:, h], 3, multipliers)
        candidates = np.concatenate([base * multipliers[near], values[None, :, h]])
        best = _take_best(errors, values, h, candidates, errors.column_costs(h, candidates[:-1]))
        index[:, h] = np.concatenate([near, index[None, :, h]])[best, np.arange(len(base))]
    return index


def _refine_base(errors: BlockErrors, base: np.ndarray, multiples: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Best multiple of each base while the multipliers stay."""
    costs = [errors.row_objective(step * base[:, None] * multiples) for step in steps]
    return base * steps[np.argmin(costs, axis=0)]
