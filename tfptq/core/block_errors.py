"""The output error of a layer as a function of its block scales, one column of blocks at a time.

With ``E = Ŵ - W``, ``A`` the covariance of the layer's inputs and ``C`` that of its float output with them, the
objective of one row block is (a sum over its rows, up to a constant)

    |E|_A^2 - 2 E·(C - W A).

``C = W A`` when the float output was computed from the same inputs. Rows do not touch each other. Replacing the
columns of block ``h`` by ``E'_h`` changes only, with ``L = (E A)_h - E_h A_hh``,

    |E|_A^2  ->  |rest|_A^2 + E'_h A_hh E'_hᵀ + 2 E'_h·L,

so that a candidate costs one product with the small matrix ``A_hh``. Differences, not outputs, are multiplied: little
is lost in float32. Arrays are in groups ``[G, P, K]`` as in ``tfptq.core.statistics``; ``K = I*T``.

Source: PTQ-SL, arXiv 2110.07809, whose objective is computed from samples; here from sufficient statistics.
"""

import numpy as np

from tfptq.core.affine import weight_code_range


class BlockErrors:
    """Errors ``E`` of a weight under changing block scales."""

    def __init__(
        self,
        view: np.ndarray,
        gram: np.ndarray,
        cross: np.ndarray | None,
        block_shape: tuple[int, int],
        bits: int,
        dtype: type = np.float32,
        symmetric: bool = False,
    ):
        """Take a weight ``[O, I, T]``, A ``[G, K, K]``, and C ``[G, P, K]`` or None for ``W A``."""
        outputs, _, taps = view.shape
        groups, columns = gram.shape[:2]
        # float32 holds products of any magnitude after scaling both factors to about 1.
        self._unit = float(np.abs(view).max(initial=0.0)) or 1.0
        power = float(np.einsum("gkk->gk", gram).mean()) or 1.0
        weight = (view.astype(np.float64) / self._unit).reshape(groups, outputs // groups, columns)
        self._weight: np.ndarray = weight.astype(dtype)
        self._gram: np.ndarray = (gram / power).astype(dtype)
        self._code_range = weight_code_range(bits, symmetric)
        self._rows, self._columns = block_shape[0], block_shape[1] * taps
        self._residual: np.ndarray | None = None  # C - W A
        if cross is not None:
            self._residual = (cross / (power * self._unit)).astype(dtype) - self._weight @ self._gram
        self.error = np.zeros_like(self._weight)  # E, [G, P, K]
        self._product = np.zeros_like(self._weight)  # E A

    def set_scales(self, values: np.ndarray) -> np.ndarray:
        """Quantize with the scales ``[V, H]`` and return the objective of each row block, float64 ``[V]``."""
        self.error = self._quantization_error(slice(None), np.repeat(values, self._columns, axis=1))
        self._product = self.error @ self._gram
        return self._objective(self.error, self._product)

    def row_objective(self, values: np.ndarray) -> np.ndarray:
        """Objective ``[V]`` that the scales ``[V, H]`` would have, without taking them."""
        error = self._quantization_error(slice(None), np.repeat(values, self._columns, axis=1))
        return self._objective(error, error @ self._gram)

    def _objective(self, error: np.ndarray, product: np.ndarray) -> np.ndarray:
        linear = product if self._residual is None else product - 2.0 * self._residual
        return self._dot(error, linear)

    def column_costs(self, h: int, scales: np.ndarray) -> np.ndarray:
        """Objectives of candidate scales ``[n, V]`` for the blocks of one column, up to a constant for each row block.

        float64 ``[n + 1, V]``; the last row belongs to the current scales.
        """
        columns = self._slice(h)
        gram = self._gram[:, columns, columns]
        current = self.error[:, :, columns]
        rest = self._product[:, :, columns] - current @ gram  # L
        linear = 2.0 * rest if self._residual is None else 2.0 * (rest - self._residual[:, :, columns])

        def cost(error: np.ndarray) -> np.ndarray:
            return self._dot(error, error @ gram + linear)

        costs = [cost(self._quantization_error(columns, candidate[:, None])) for candidate in scales]
        return np.stack([*costs, cost(current)])

    def set_column(self, h: int, scales: np.ndarray) -> None:
        """Take the scales ``[V]`` for the blocks of one column."""
        columns = self._slice(h)
        error = self._quantization_error(columns, scales[:, None])
        self._product += (error - self.error[:, :, columns]) @ self._gram[:, columns, :]
        self.error[:, :, columns] = error

    def take_best(self, h: int, candidates: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Take the best of candidates ``[n, V]`` for one column, the last one of equal ones; return which, ``[V]``."""
        best = len(costs) - 1 - costs[::-1].argmin(axis=0)
        self.set_column(h, candidates[best, np.arange(len(best))])
        return best

    def _quantization_error(self, columns: slice, scales: np.ndarray) -> np.ndarray:
        """Errors ``[G, P, k]`` of nearest rounding with the scales ``[V, 1]`` or ``[V, k]``."""
        weight = self._weight[:, :, columns]
        groups, outputs, width = weight.shape
        scale = np.repeat(scales.astype(weight.dtype) / self._unit, self._rows, axis=0)[: groups * outputs, :width]
        scale = scale.reshape(groups, outputs, -1)
        error = weight / scale
        np.rint(error, out=error)
        np.clip(error, *self._code_range, out=error)
        error *= scale
        error -= weight
        return error

    def _slice(self, h: int) -> slice:
        return slice(h * self._columns, (h + 1) * self._columns)

    def _dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Inner products of the row blocks, float64 ``[V]``."""
        rows = np.einsum("gpk,gpk->gp", a, b).astype(np.float64).reshape(-1)
        return np.add.reduceat(rows, np.arange(0, len(rows), self._rows))
