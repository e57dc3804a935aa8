"""Rounding by error feedback and coordinate descent on the layer's quadratic.

Minimises ``f(ŵ) = ŵ A ŵᵀ - 2 ŵ·c`` over codes, for all rows at once, in two stages.

1. **Sequential rounding.** ``w* = c A⁻¹`` is the unrestricted minimum and ``f(ŵ) = (ŵ - w*) A (ŵ - w*)ᵀ +
   const``. Weights are rounded one after the other; each takes the nearest code, and its error is made good in
   the weights still to come: with ``U`` the upper Cholesky factor of ``A⁻¹``, rounding weight ``k`` by ``e`` moves
   weight ``j > k`` by ``-e U[k, j] / U[k, k]``. Weights with much input power come first, while many others can
   still make amends. (GPTQ, arXiv 2210.17323, equations 2 and 3; the same as Babai's nearest plane.)
2. **Coordinate descent.** Each weight in turn jumps to the code, any code, that is best with all others fixed:
   ``q = clip(round((ŵ_k - h_k / A_kk) / S_k))`` with the half gradient ``h = ŵ A - c``. A sweep never raises ``f``.

Both run over blocks of ``BLOCK`` weights: inside a block by rank-one updates, to the rest by one matrix product.
Arrays here have the weights first, ``[K, G, P]``, so that one weight of all rows lies in one piece of memory.
"""

import numpy as np

from tfptq.core.rounding.problem import RoundingProblem
from tfptq.core.rounding.registry import NoOptions, rounding_method

#: Weights handled between two matrix products.
BLOCK = 64
#: Sweeps of coordinate descent, at most.
SWEEPS = 20


@rounding_method("coordinate")
def coordinate_codes(problem: RoundingProblem, options: NoOptions | None = None) -> np.ndarray:
    """Both stages: codes ``[G, P, K]``."""
    del options
    return descend(problem, sequential_codes(problem))


def sequential_codes(problem: RoundingProblem) -> np.ndarray:
    """Stage 1: codes ``[G, P, K]``."""
    order = np.argsort(-np.diagonal(problem.gram, axis1=1, axis2=2), axis=1, kind="stable")  # [G, K]
    gram = np.take_along_axis(problem.gram, order[:, :, None], axis=1)
    gram = np.take_along_axis(gram, order[:, None, :], axis=2)
    inverse = np.linalg.inv(gram)
    minimum = np.take_along_axis(problem.cross, order[:, None, :], axis=2) @ inverse
    upper = np.linalg.cholesky(inverse).transpose(1, 2, 0)  # [K, K, G]: column k of the lower factor is row k
    scale = np.take_along_axis(problem.scale, order[:, None, :], axis=2)
    codes = _round_in_order(_weights_first(minimum), _weights_first(scale), problem.code_range, upper)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(codes.transpose(1, 2, 0), back[:, None, :], axis=2)


def descend(problem: RoundingProblem, codes: np.ndarray, sweeps: int = SWEEPS) -> np.ndarray:
    """Stage 2: better float64 codes ``[G, P, K]``, none worse, from any start."""
    gram = np.ascontiguousarray(problem.gram.transpose(1, 2, 0))  # [K, K, G]
    gradient = _weights_first((problem.scale * codes) @ problem.gram - problem.cross)
    scale, codes = _weights_first(problem.scale), _weights_first(codes)
    for _ in range(sweeps):
        if not _sweep(codes, gradient, scale, problem.code_range, gram):
            break
    return np.ascontiguousarray(codes.transpose(1, 2, 0))


def _weights_first(values: np.ndarray) -> np.ndarray:
    """``[G, P, K]`` -> a copy ``[K, G, P]``."""
    return np.array(values.transpose(2, 0, 1), order="C")


def _round_in_order(
    target: np.ndarray, scale: np.ndarray, code_range: tuple[int, int], lower: np.ndarray
) -> np.ndarray:
    """Round ``target [K, G, P]`` in order, feeding errors forward through ``lower [K, K, G]``."""
    inputs, codes = len(target), np.empty_like(target)
    for start in range(0, inputs, BLOCK):
        end = min(start + BLOCK, inputs)
        errors = np.empty_like(target[start:end])
        for k in range(start, end):
            codes[k] = np.clip(np.rint(target[k] / scale[k]), *code_range)
            error = (target[k] - scale[k] * codes[k]) / lower[k, k, :, None]
            target[k + 1 : end] -= lower[k + 1 : end, k, :, None] * error
            errors[k - start] = error
        target[end:] -= _spread(lower[end:, start:end], errors)
    return codes


def _sweep(
    codes: np.ndarray, gradient: np.ndarray, scale: np.ndarray, code_range: tuple[int, int], gram: np.ndarray
) -> bool:
    """One pass over all weights, in place. Returns whether any code changed."""
    inputs, changed = len(codes), False
    for start in range(0, inputs, BLOCK):
        end = min(start + BLOCK, inputs)
        moves = np.empty_like(codes[start:end])
        local = gradient[start:end].copy()
        for k in range(start, end):
            row = local[k - start]
            best = np.clip(np.rint(codes[k] - row / (gram[k, k, :, None] * scale[k])), *code_range)
            moves[k - start] = (best - codes[k]) * scale[k]
            codes[k] = best
            local += gram[start:end, k, :, None] * moves[k - start]
        if moves.any():
            gradient += _spread(gram[:, start:end], moves)
            changed = True
    return changed


def _spread(matrix: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """``matrix [J, B, G]`` times ``moves [B, G, P]`` for each group: ``[J, G, P]``."""
    return (matrix.transpose(2, 0, 1) @ moves.transpose(1, 0, 2)).transpose(1, 0, 2)
