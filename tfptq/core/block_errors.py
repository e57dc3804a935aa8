"""The output error of a layer as a function of its block scales, one column of blocks at a time.

With ``E = Ŵ - W``, ``A`` the covariance of the layer's inputs and ``C`` that of its float output with them, the two
objectives of one row block are (sums over its rows)

    output error:   |E|_A^2 - 2 E·(C - W A)                                      (plus a constant)
    cosine:         -cos(z, ẑ) = -(W·C + E·C) / sqrt(|W|_A^2 + 2 E·(W A) + |E|_A^2)

``C = W A`` when the float output was computed from the same inputs. Rows do not touch each other. Replacing the
columns of block ``h`` by ``E'_h`` changes only, with ``L = (E A)_h - E_h A_hh``,

    |E|_A^2  ->  |rest|_A^2 + E'_h A_hh E'_hᵀ + 2 E'_h·L,

so that a candidate costs one product with the small matrix ``A_hh``. Differences, not outputs, are multiplied: little
is lost in float32. Arrays are in groups ``[G, P, K]`` as in ``tfptq.core.statistics``; ``K = I*T``.

Source: PTQ-SL, arXiv 2110.07809, whose objective is computed from samples; here from sufficient statistics.
"""

import numpy as np

from tfptq.core.affine import weight_code_range

OBJECTIVES = ("output_error", "cosine")


class BlockErrors:
    """Errors ``E`` of a weight under changing block scales.

    Attributes:
        error: current ``E``, ``[G, P, K]``.
        shape: number of row and column blocks ``(V, H)``.
    """

    def __init__(
        self,
        view: np.ndarray,
        gram: np.ndarray,
        cross: np.ndarray | None,
        block_shape: tuple[int, int],
        bits: int,
        objective: str = "output_error",
        dtype: type = np.float32,
    ):
        """Prepare the quadratic.

        Args:
            view: float weight ``[O, I, T]``.
            gram: A, ``[G, K, K]``.
            cross: C, ``[G, P, K]``, or None for ``W A``.
            block_shape: ``(m, n)`` in channels.
            bits: width of the codes.
            objective: one of ``OBJECTIVES``.
            dtype: of the computation.
        """
        outputs, inputs, taps = view.shape
        groups, columns = gram.shape[:2]
        # float32 holds products of any magnitude after scaling both factors to about 1.
        self._unit = float(np.abs(view).max(initial=0.0)) or 1.0
        power = float(np.einsum("gkk->gk", gram).mean()) or 1.0
        self._weight = (view.astype(np.float64) / self._unit).reshape(groups, outputs // groups, columns).astype(dtype)
        self._gram = (gram / power).astype(dtype)
        self._code_range = weight_code_range(bits)
        self._rows, self._columns = block_shape[0], block_shape[1] * taps
        self._cosine = objective == "cosine"
        self.shape = -(-outputs // block_shape[0]), -(-inputs // block_shape[1])
        self._residual = self._linear = None
        if self._cosine or cross is not None:
            exact = self._weight @ self._gram  # W A
            target = exact if cross is None else (cross / (power * self._unit)).astype(dtype)
            self._linear = np.stack([exact, target])  # [2, G, P, K]
            self._residual = target - exact
            self._norms = [self._dot(self._weight, term) for term in (exact, target)]
        self.error = np.zeros_like(self._weight)
        self._product = np.zeros_like(self._weight)  # E A

    def set_scales(self, values: np.ndarray) -> np.ndarray:
        """Quantize with the scales ``[V, H]`` and return the objective of each row block, float64 ``[V]``."""
        self.error = self._quantization_error(slice(None), np.repeat(values, self._columns, axis=1))
        self._product = self.error @ self._gram
        return self.objective(self.error, self._product)

    def row_objective(self, values: np.ndarray) -> np.ndarray:
        """Objective ``[V]`` that the scales ``[V, H]`` would have, without taking them."""
        error = self._quantization_error(slice(None), np.repeat(values, self._columns, axis=1))
        return self.objective(error, error @ self._gram)

    def objective(self, error: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Objective ``[V]`` of errors ``E`` with their ``E A``."""
        if self._cosine:
            return self._cosine_cost(self._dot(error, product), *(self._dot(error, term) for term in self._linear))
        linear = product if self._residual is None else product - 2.0 * self._residual
        return self._dot(error, linear)

    def column_costs(self, h: int, scales: np.ndarray) -> np.ndarray:
        """Objectives of candidate scales for the blocks of one column.

        Args:
            h: column of blocks.
            scales: float ``[n, V]`` candidates.

        Returns:
            float64 ``[n + 1, V]``, up to a constant for each row block; the last row belongs to the current scales.
        """
        columns = self._slice(h)
        gram = self._gram[:, columns, columns]
        current = self.error[:, :, columns]
        rest = self._product[:, :, columns] - current @ gram  # L
        if not self._cosine:
            linear = 2.0 * rest if self._residual is None else 2.0 * (rest - self._residual[:, :, columns])
            return self._each(columns, scales, current, lambda e: self._dot(e, e @ gram + linear))
        terms = self._linear[:, :, :, columns]
        fixed = [self._dot(self.error, self._product) - self._dot(current, current @ gram + 2.0 * rest)]
        fixed += [
            self._dot(self.error, whole) - self._dot(current, part)
            for whole, part in zip(self._linear, terms, strict=True)
        ]

        def cost(error: np.ndarray) -> np.ndarray:
            moved = [self._dot(error, error @ gram + 2.0 * rest), *(self._dot(error, part) for part in terms)]
            return self._cosine_cost(*(a + b for a, b in zip(fixed, moved, strict=True)))

        return self._each(columns, scales, current, cost)

    def set_column(self, h: int, scales: np.ndarray) -> None:
        """Take the scales ``[V]`` for the blocks of one column."""
        columns = self._slice(h)
        error = self._quantization_error(columns, scales[:, None])
        self._product += (error - self.error[:, :, columns]) @ self._gram[:, columns, :]
        self.error[:, :, columns] = error

    def take_best(self, h: int, candidates: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Take the best candidates for the blocks of one column; the last one wins ties.

        Args:
            h: column of blocks.
            candidates: scales ``[n, V]``.
            costs: their objectives ``[n, V]``.

        Returns:
            Which one each row block took, ``[V]``.
        """
        best = len(costs) - 1 - costs[::-1].argmin(axis=0)
        self.set_column(h, candidates[best, np.arange(len(best))])
        return best

    def _each(self, columns: slice, scales: np.ndarray, current: np.ndarray, cost) -> np.ndarray:
        costs = [cost(self._quantization_error(columns, candidate[:, None])) for candidate in scales]
        return np.stack([*costs, cost(current)])

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

    def _cosine_cost(self, quadratic: np.ndarray, exact: np.ndarray, target: np.ndarray) -> np.ndarray:
        length = np.sqrt(np.maximum(self._norms[0] + 2.0 * exact + quadratic, 0.0))
        # An output that is all 0 points nowhere: as bad as an orthogonal one.
        return -(self._norms[1] + target) / np.where(length > 0.0, length, np.inf)
