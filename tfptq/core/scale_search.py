"""Search for the block scales with the least layer output error (PTQ-SL, arXiv 2110.07809).

**Float scales.** Candidates for a block are ``(alpha + i (beta - alpha)/n) S0``, ``S0`` its max-abs scale, and 1.0.
Coordinate descent goes over the columns ``h`` of blocks; all rows ``v`` of blocks move at once, because a row block
only moves its own outputs. The candidates are tried coarse to fine: every fourth one, then the neighbours of each
block's best.

**Integer and shift scales.** ``S[v, h] = s_v * r[v, h]`` with ``r`` an integer or a power of two; ``r`` times
any code stays within 127, so that the layer is exactly an int8 one. ``multiple_search`` looks for them near the best
float scales; each row block keeps the best of what it finds.

Every row block starts at the better one of the max-abs and the weight-MSE scales, and in the end takes its start back
if the search, which runs in float32, is not better in float64: the result is never worse than either start.
"""

from collections.abc import Sequence

import numpy as np

from tfptq.base.arguments import one_of
from tfptq.core.affine import SCALE_KINDS, multipliers_of
from tfptq.core.block_errors import BlockErrors
from tfptq.core.blocks import BlockScales, block_maxima, float_scales
from tfptq.core.multiple_search import QUICK, THOROUGH, MultipleSearch
from tfptq.core.scale_multiples import largest_alive, scales_of_multiples
from tfptq.core.weight_scales import max_abs_scales, start_scales

#: Candidates of a float block scale, as multiples of max-abs: alpha, beta and n of the paper.
ALPHA, BETA, STEPS = 0.3, 1.2, 100
#: Passes of coordinate descent.
SWEEPS = 2
#: Every so many candidates are tried first, and then the three to each side of the best: 33 in place of all 102.
_STRIDE = 4
#: What the search must gain on its start, relative: no rounding error of the objective may choose other scales.
_MARGIN = 1e-9


def search_scales(
    view: np.ndarray,
    gram: np.ndarray,
    block_shape: tuple[int, int],
    bits: int,
    kind: str = "float",
    cross: np.ndarray | None = None,
    allowed: Sequence[int] | None = None,
    thorough: bool = False,
    symmetric: bool = False,
) -> BlockScales:
    """Block scales with the least layer output error under nearest rounding, no worse than max-abs and MSE ones.

    Args:
        view: float weight ``[O, I, T]``.
        gram: covariance A of the layer's inputs, ``[G, K, K]`` for ``G`` groups of ``K = I*T`` inputs, or
            ``[K, K]``. Depthwise layers have a group for each channel.
        block_shape: ``(m, n)`` in channels.
        bits: width of the codes.
        kind: ``"float"``, ``"integer"`` or ``"shift"``.
        cross: covariance C of the float output with the inputs, ``[G, O/G, K]``; None if they saw the same inputs.
        allowed: the only multipliers of integer scales; None for all.
        thorough: search integer and shift scales for longer: worth it with nearest rounding, not where rounding is
            learned afterwards.
        symmetric: search float scales for codes without the one that has no mirror image.
    """
    gram = gram[None] if gram.ndim == 2 else gram
    _check(view, gram, cross, kind)
    arguments = (view, gram, cross, block_shape, bits)
    starts = start_scales(view, block_shape, bits, kind, allowed, symmetric)
    exact = BlockErrors(*arguments, dtype=np.float64, symmetric=symmetric)
    start = _rowwise_best(starts, exact)
    unrestricted = start if kind == "float" else _rowwise_best(start_scales(view, block_shape, bits, "float"), exact)
    errors = BlockErrors(*arguments, symmetric=symmetric)
    errors.set_scales(unrestricted.values())
    largest = max_abs_scales(view, block_shape, bits).values()
    found = float_scales(_descend_float(errors, unrestricted.values(), largest), block_shape)
    if kind != "float":
        search = MultipleSearch(errors, found.values(), multipliers_of(kind, bits, allowed), SWEEPS)
        alive = block_maxima(view, block_shape) > 0.0
        finished = search.run(largest_alive(found.values(), alive), THOROUGH if thorough else QUICK)
        found = _rowwise_best([scales_of_multiples(kind, *item, block_shape) for item in finished], errors)
    return _rowwise_best([start, found], exact, _MARGIN)


def _check(view: np.ndarray, gram: np.ndarray, cross: np.ndarray | None, kind: str) -> None:
    one_of("scale kind", kind, SCALE_KINDS)
    outputs, inputs, taps = view.shape
    columns = inputs * taps
    groups = gram.shape[0]
    if gram.shape != (groups, columns, columns) or outputs % groups:
        raise ValueError(f"a Gram matrix of shape {gram.shape} does not fit a weight view {view.shape} [O, I, T]")
    if cross is not None and cross.shape != (groups, outputs // groups, columns):
        raise ValueError(f"cross terms of shape {cross.shape} do not fit a weight view {view.shape} [O, I, T]")


def _rowwise_best(choices: list[BlockScales], errors: BlockErrors, margin: float = 0.0) -> BlockScales:
    """For each row block the scales with the least objective: the first, unless others gain more than its share."""
    costs = np.stack([errors.row_objective(scales.values()) for scales in choices])
    costs[0] -= margin * np.abs(costs[0])
    best = costs.argmin(axis=0)  # [V]
    rows = np.arange(len(best))
    factors = np.stack([scales.factors for scales in choices])[best, rows]
    base = choices[0].base
    if choices[0].kind != "float":
        base = np.stack([scales.base for scales in choices])[best, rows]
    return BlockScales(choices[0].kind, base, factors, choices[0].block_shape)


def _descend_float(errors: BlockErrors, values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Coordinate descent over columns; returns float32 ``[V, H]``."""
    values = values.copy()
    factors = (ALPHA + np.arange(STEPS + 1) * (BETA - ALPHA) / STEPS).astype(np.float32)
    coarse = np.arange(0, STEPS + 1, _STRIDE)
    near = np.concatenate([np.arange(-_STRIDE + 1, 0), np.arange(1, _STRIDE)])
    columns = values.shape[1]
    for _ in range(SWEEPS if columns > 1 else 1):
        before = values.copy()
        for h in range(columns):
            first = np.append(factors[coarse], np.float32(1.0))[:, None] * largest[:, h]
            costs = errors.column_costs(h, first)
            center = coarse[costs[: len(coarse)].argmin(axis=0)]  # [V]
            second = factors[np.clip(center + near[:, None], 0, STEPS)] * largest[:, h]
            costs = np.concatenate([errors.column_costs(h, second)[:-1], costs])
            candidates = np.concatenate([second, first, values[None, :, h]])  # the current one wins ties
            best = errors.take_best(h, candidates, costs)
            values[:, h] = candidates[best, np.arange(len(values))]
        if np.array_equal(values, before):
            break
    return values
