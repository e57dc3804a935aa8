"""Search for integer and shift scales with the least layer output error: ``S[v, h] = s_v * r[v, h]``.

From the best float scales:

1. ``s_v``: for each candidate every block takes the multiplier with the least error while its neighbours keep their
   float scales; those with the least sums go on. A thorough search tries more candidates, and takes those that a pass
   of step 2 leaves with the least errors.
2. ``r``: coordinate descent over columns with the true errors.
3. ``s_v`` again for fixed ``r``, then ``r`` again; a thorough search refines both twice more.
"""

from dataclasses import dataclass

import numpy as np

from tfptq.core.block_errors import BlockErrors
from tfptq.core.scale_multiples import nearest_multiplier

#: How many multipliers to each side are tried: of the one nearest to the float scale, to compare candidates of ``s_v``;
#: and of the present one in coordinate descent, which looks further, since there blocks make good each other's errors.
_REACH_OF_BASES, _REACH = 1, 3
#: Multiples of ``s_v`` tried while the multipliers stay: near 1 in small steps, and a few further away; then near 1.
_BASE_STEPS = np.concatenate([np.linspace(0.7, 0.95, 6), np.linspace(0.96, 1.04, 9), np.linspace(1.05, 1.2, 4)])
_FINE_STEPS = np.linspace(0.97, 1.03, 25)


@dataclass(frozen=True, eq=False)
class Effort:
    """How long to search."""

    #: Candidates of ``s_v``, as multiples of the one that gives the row's largest block the largest multiplier. Below 1
    #: no multiplier is large enough for that block; above 1 the largest ones are not needed.
    bases: np.ndarray
    entrants: int | None  # how many of them get one pass over the columns; None for no such stage
    finalists: int  # how many go through the whole search
    refinements: tuple[np.ndarray, ...]  # multiples of ``s_v`` to try, time after time


#: Neighbouring candidates are 5 % apart.
QUICK = Effort(np.geomspace(0.6, 2.5, 32), None, 4, (_BASE_STEPS,))
#: Three times as dense: with nearest rounding, the error jumps from candidate to candidate, so that trying many pays.
#: docs/benchmarks/blocks.md ("Kinds of block scale") says how near to float they come.
THOROUGH = Effort(np.geomspace(0.6, 2.5, 94), 48, 8, (_BASE_STEPS, _FINE_STEPS, _FINE_STEPS))


@dataclass(frozen=True, eq=False)
class MultipleSearch:
    """A search near given float scales."""

    errors: BlockErrors  # of the layer, which have taken the float scales; the search moves them
    wanted: np.ndarray  # the float scales, [V, H]
    multipliers: np.ndarray  # those to choose from, ascending
    sweeps: int  # of coordinate descent

    def run(self, largest: np.ndarray, effort: Effort) -> list[tuple[np.ndarray, np.ndarray]]:
        """Search from the most promising bases; ``largest [V]`` is the largest float scale of each row that counts.

        Returns:
            ``s_v`` ``[V]`` and multipliers ``[V, H]`` of each finalist.
        """
        if self.wanted.shape[1] == 1:
            return [(self.wanted[:, 0], np.ones_like(self.wanted))]
        bases = self._best_bases(largest / self.multipliers[-1] * effort.bases[:, None])
        if effort.entrants is not None:
            bases = self._best_after_a_pass(bases[: effort.entrants])
        finished = []
        for base in bases[: effort.finalists]:
            index = self._descend(base, self._nearest(base), self.sweeps)
            for steps in effort.refinements:
                base = self._refine_base(base, index, steps)
                index = self._descend(base, index, self.sweeps)
            finished.append((base, self.multipliers[index]))
        return finished

    def _nearest(self, base: np.ndarray) -> np.ndarray:
        """Indices ``[V, H]`` of the multipliers that come nearest to the float scales."""
        return nearest_multiplier(self.wanted / base[:, None], self.multipliers)

    def _near(self, index: np.ndarray, reach: int) -> np.ndarray:
        """Indices ``[n, V]`` around ``index`` ``[V]``."""
        return np.clip(index + np.arange(-reach, reach + 1)[:, None], 0, len(self.multipliers) - 1)

    def _best_bases(self, bases: np.ndarray) -> np.ndarray:
        """Bases ``[n, V]``, the best first, by the sums over the blocks of their errors at the best multiplier each."""
        total = np.zeros_like(bases)
        for h, wanted in enumerate(self.wanted.T):
            nearest = [nearest_multiplier(wanted / base, self.multipliers) for base in bases]
            near = np.stack([self._near(index, _REACH_OF_BASES) for index in nearest])  # [n, 3, V]
            candidates = self.multipliers[near] * bases[:, None, :]
            costs = self.errors.column_costs(h, candidates.reshape(-1, bases.shape[1]))[:-1]
            total += costs.reshape(candidates.shape).min(axis=1)
        return np.take_along_axis(bases, total.argsort(axis=0, kind="stable"), axis=0)

    def _best_after_a_pass(self, bases: np.ndarray) -> np.ndarray:
        """Bases ``[n, V]``, the best first, by their errors after a pass over the columns."""
        costs = []
        for base in bases:
            index = self._descend(base, self._nearest(base), sweeps=1)
            costs.append(self.errors.row_objective(base[:, None] * self.multipliers[index]))
        return np.take_along_axis(bases, np.argsort(costs, axis=0, kind="stable"), axis=0)

    def _descend(self, base: np.ndarray, index: np.ndarray, sweeps: int) -> np.ndarray:
        """Coordinate descent over columns for fixed bases; returns the new indices ``[V, H]``."""
        index = index.copy()
        values = base[:, None] * self.multipliers[index]
        self.errors.set_scales(values)
        for h in list(range(index.shape[1])) * sweeps:
            near = self._near(index[:, h], _REACH)
            candidates = np.concatenate([base * self.multipliers[near], values[None, :, h]])
            costs = self.errors.column_costs(h, candidates[:-1])
            best = self.errors.take_best(h, candidates, costs)
            values[:, h] = candidates[best, np.arange(len(base))]
            index[:, h] = np.concatenate([near, index[None, :, h]])[best, np.arange(len(base))]
        return index

    def _refine_base(self, base: np.ndarray, index: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Best multiple of each base while the multipliers stay."""
        multiples = self.multipliers[index]
        costs = [self.errors.row_objective(step * base[:, None] * multiples) for step in steps]
        return base * steps[np.argmin(costs, axis=0)]
