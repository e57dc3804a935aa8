"""Integer and shift scales: the scales of a row of blocks as multiples of one, ``S[v, h] = s_v * r[v, h]``.

``r`` is an integer (``integer``) or a power of two (``shift``), and ``r`` times any code stays within 127, so that the
layer is exactly an int8 one; ``affine.multipliers_of`` names them. A row with one block has nothing to tell apart: its
multiplier is 1.
"""

import numpy as np

from tfptq.core.affine import SMALLEST_SCALE
from tfptq.core.blocks import BlockScales

#: A multiple covers a scale that exceeds it by this share: ratios of float32 scales are no more exact.
_ROUNDING = 1e-6


def scales_of_multiples(
    kind: str, base: np.ndarray, multiples: np.ndarray, block_shape: tuple[int, int]
) -> BlockScales:
    """``BlockScales`` of the kind ``"integer"`` or ``"shift"`` from ``s_v`` ``[V]`` and integers ``r`` ``[V, H]``."""
    base = np.maximum(base.astype(np.float32), SMALLEST_SCALE)
    factors = multiples if kind == "integer" else np.log2(multiples)
    return BlockScales(kind, base, factors.astype(np.int8), block_shape)


def largest_alive(values: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Largest scale in each row of the blocks that are not all 0, ``[V]``; rows without one take that of the layer.

    Args:
        values: float scales ``[V, H]``.
        alive: which blocks are not all 0, ``[V, H]``.
    """
    rows = np.where(alive, values, 0.0).max(axis=1)
    return np.where(rows > 0.0, rows, values.max())


def nearest_multiplier(ratios: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Index of the multiplier ``[n]``, ascending, nearest to each ratio of any shape on a logarithmic scale."""
    return np.searchsorted(np.sqrt(multipliers[1:] * multipliers[:-1]), ratios)


def covering_scales(scales: BlockScales, alive: np.ndarray, kind: str, multipliers: np.ndarray) -> BlockScales:
    """The smallest multiples that are not below given float scales, so that nothing more is clipped.

    Each row's largest scale gets the largest multiplier, which leaves the most to the others.

    Args:
        scales: of the kind ``float``.
        alive: which blocks are not all 0, ``[V, H]``.
        kind: ``"integer"`` or ``"shift"``.
        multipliers: those to choose from, ascending.
    """
    values = scales.values()
    if values.shape[1] == 1:
        return scales_of_multiples(kind, values[:, 0], np.ones_like(values), scales.block_shape)
    base = largest_alive(values, alive) / multipliers[-1]
    wanted = np.searchsorted(multipliers, values / base[:, None] * (1.0 - _ROUNDING))
    return scales_of_multiples(kind, base, multipliers[np.minimum(wanted, len(multipliers) - 1)], scales.block_shape)
