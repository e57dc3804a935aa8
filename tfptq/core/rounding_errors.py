"""Squared errors of a weight that is rounded to the nearest codes, under many candidate scales.

The searches for scales from the weights alone do little else, and a large network has tens of millions of weights. So
the weight is taken in pieces that stay in the processor's cache while all candidates are tried on them, in single
precision, which is enough to compare candidates.
"""

import numpy as np

from tfptq.core.affine import weight_code_range

#: Weights in a piece, at least one row of blocks.
_PIECE = 1 << 16


def rounding_errors(
    units: np.ndarray, candidates: np.ndarray, shape: tuple[int, int], bits: int, symmetric: bool = False
) -> np.ndarray:
    """Squared error of each block under each candidate, float64 ``[n, V, H]``.

    Args:
        units: float32 ``[O, I, T]``; the caller chooses the unit so that squares are normal numbers.
        candidates: ``[n, V, H]`` scales of the blocks, in the same unit; an axis of length 1 holds for all rows of
            blocks, or for all columns.
        shape: block shape ``(m, n)`` in channels.
        bits: width of the codes.
        symmetric: leave the code out that has no mirror image.
    """
    outputs, inputs, taps = units.shape
    (m, n), code_range = shape, weight_code_range(bits, symmetric)
    candidates = np.asarray(candidates, np.float32)[:, :, :, None]
    errors = np.empty((len(candidates), -(-outputs // m), -(-inputs // n)))
    _, rows, columns = errors.shape
    step = max(1, _PIECE // max(1, m * inputs * taps))
    for start in range(0, rows, step):
        # Zeros make the last column of blocks as wide as the others; they have no error under any scale.
        piece = np.zeros((min(outputs - start * m, step * m), columns * n, taps), np.float32)
        piece[:, :inputs] = units[start * m : (start + step) * m]
        piece = piece.reshape(len(piece), columns, n * taps)
        for number, scales in enumerate(candidates):
            if len(scales) > 1:
                scales = np.repeat(scales[start : start + step], m, axis=0)[: len(piece)]
            squares = _squared_errors(piece, scales, code_range)  # [R, H]
            errors[number, start : start + step] = np.add.reduceat(squares, np.arange(0, len(piece), m), axis=0)
    return errors


def _squared_errors(weights: np.ndarray, scales: np.ndarray, code_range: tuple[int, int]) -> np.ndarray:
    """Sums ``[R, H]`` over the last axis of weights ``[R, H, K]``."""
    error = weights / scales
    np.rint(error, out=error)
    np.clip(error, *code_range, out=error)
    error *= scales
    error -= weights
    return np.einsum("rhk,rhk->rh", error, error)
