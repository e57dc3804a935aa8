"""Scales of weight blocks, from the weights alone.

* Max-abs: ``S0[v, h] = max|W in block| / (2**(b-1) - 1)``; no weight is clipped.
* MSE: for each block the candidate ``f * S0``, ``f`` from a grid that contains 1, with the least squared
  rounding and clipping error. Errors are computed in units of ``S0``, so that magnitudes do not matter.
* Integer and shift scales (``scale_multiples``): the smallest multiples that cover the max-abs scales, or of many
  ``s_v`` those whose multiples nearest to the best float scales have the least squared error in each row of blocks.

A block of zeros takes the largest scale of the layer: its codes are 0 whatever the scale, but the bias of a dead
channel is quantized with it, and a large scale can hold any bias its neighbours can.
"""

from collections.abc import Sequence

import numpy as np

from tfptq.core.affine import SMALLEST_SCALE, multipliers_of, weight_code_limit
from tfptq.core.blocks import BlockScales, block_maxima, float_scales
from tfptq.core.granularity import Granularity, PerTensor
from tfptq.core.rounding_errors import rounding_errors
from tfptq.core.scale_multiples import (
    covering_scales,
    largest_alive,
    nearest_multiplier,
    scales_of_multiples,
)
from tfptq.core.shift_scaler import shift_scales

#: Candidate scales, as multiples of the max-abs scale. Max-abs comes first: it wins ties.
CANDIDATES = np.concatenate([[1.0], np.linspace(0.3, 1.2, 91)]).astype(np.float32)
#: Candidates of ``s_v``, as multiples of the one that gives a row's largest scale the largest multiplier.
_BASE_STEPS = np.geomspace(0.75, 1.5, 16)


def fit_scales(
    view: np.ndarray,
    granularity: Granularity,
    bits: int,
    kind: str = "float",
    *,
    by_error: bool = False,
    allowed: Sequence[int] | None = None,
    symmetric: bool = False,
) -> BlockScales:
    """Scales of a weight.

    Args:
        view: float ``[O, I, T]``.
        granularity: which weights share a scale.
        bits: width of the codes.
        kind: ``"float"``, ``"integer"`` or ``"shift"``; one layer scale and shifts are the shift scaler (WES).
        by_error: search the scales with the least squared weight error, instead of max-abs ones.
        allowed: the only multipliers of integer scales; None for all.
        symmetric: search float scales for codes without the one that has no mirror image.

    Raises:
        ValueError: the weights are not finite.
    """
    if not np.isfinite(view).all():
        raise ValueError("the weights contain NaN or infinity")
    if kind == "shift" and isinstance(granularity, PerTensor):
        return shift_scales(view, bits, search=by_error)
    shape = granularity.block_shape(view.shape[0], view.shape[1])
    return (
        mse_scales(view, shape, bits, kind, allowed, symmetric)
        if by_error
        else max_abs_scales(view, shape, bits, kind, allowed)
    )


def max_abs_scales(
    view: np.ndarray, shape: tuple[int, int], bits: int, kind: str = "float", allowed: Sequence[int] | None = None
) -> BlockScales:
    """Smallest scales that clip nothing; of another kind than float, the smallest multiples that are not below them.

    Arguments are as of ``fit_scales``; ``shape`` is that of the blocks, ``(m, n)`` in channels.
    """
    maxima = block_maxima(view, shape).astype(np.float64)
    alive = maxima > 0.0
    maxima[~alive] = maxima.max(initial=0.0) or 1.0
    scales = float_scales(np.maximum(np.float32(maxima / weight_code_limit(bits)), SMALLEST_SCALE), shape)
    return scales if kind == "float" else covering_scales(scales, alive, kind, multipliers_of(kind, bits, allowed))


def mse_scales(
    view: np.ndarray,
    shape: tuple[int, int],
    bits: int,
    kind: str = "float",
    allowed: Sequence[int] | None = None,
    symmetric: bool = False,
) -> BlockScales:
    """Scales with the least squared weight error, never worse than max-abs ones of that kind, with its arguments."""
    start = max_abs_scales(view, shape, bits)
    units = (view / start.expand(*view.shape[:2])).astype(np.float32)  # weights in units of S0
    errors = rounding_errors(units, CANDIDATES[:, None, None], shape, bits, symmetric)
    wanted = float_scales(start.values() * CANDIDATES[errors.argmin(axis=0)], shape)
    if kind == "float":
        return wanted
    alive, multipliers = block_maxima(view, shape) > 0.0, multipliers_of(kind, bits, allowed)
    starts = [covering_scales(scales, alive, kind, multipliers) for scales in (start, wanted)]
    return mse_multiples(view, wanted, starts, alive, bits, multipliers)


def start_scales(
    view: np.ndarray,
    shape: tuple[int, int],
    bits: int,
    kind: str,
    allowed: Sequence[int] | None = None,
    symmetric: bool = False,
) -> list[BlockScales]:
    """Max-abs and MSE scales of one kind, between which a search may choose its start."""
    by_error = mse_scales(view, shape, bits, kind, allowed, symmetric)
    return [max_abs_scales(view, shape, bits, kind, allowed), by_error]


def mse_multiples(
    view: np.ndarray,
    wanted: BlockScales,
    starts: list[BlockScales],
    alive: np.ndarray,
    bits: int,
    multipliers: np.ndarray,
) -> BlockScales:
    """Integer or shift scales with the least squared weight error in each row of blocks, which no start beats.

    For each of many ``s_v`` every block takes the multiple nearest to its wanted scale.

    Args:
        view: float ``[O, I, T]``.
        wanted: best float scales.
        starts: scales of the kind asked for.
        alive: which blocks are not all 0, ``[V, H]``.
        bits: width of the codes.
        multipliers: those to choose from, ascending.
    """
    kind, shape, values = starts[0].kind, wanted.block_shape, wanted.values()
    candidates = list(starts)
    if values.shape[1] > 1:
        for step in _BASE_STEPS:
            base = step * largest_alive(values, alive) / multipliers[-1]
            index = nearest_multiplier(values / base[:, None], multipliers)
            candidates.append(scales_of_multiples(kind, base, multipliers[index], shape))
    units = max_abs_scales(view, view.shape[:2], bits)  # one number, to keep squares of any magnitude finite
    weights, unit = (view / units.values()).astype(np.float32), units.values()
    errors = rounding_errors(weights, np.stack([item.values() for item in candidates]) / unit, shape, bits)
    best, rows = np.argmin(errors.sum(axis=2), axis=0), np.arange(len(values))
    base = np.stack([item.base for item in candidates])[best, rows]
    factors = np.stack([item.factors for item in candidates])[best, rows]
    return BlockScales(kind, base, factors, shape)
