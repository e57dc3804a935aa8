"""Tensors that share a grid: groups that operators join, each with a range and perhaps a fixed grid."""

from collections.abc import Mapping

from tfptq.core.affine import ActivationGrid, activation_grid, symmetric_range

Range = tuple[float, float]


def hull(first: Range, second: Range) -> Range:
    """The least range around two."""
    return min(first[0], second[0]), max(first[1], second[1])


def width_of(limits: Range) -> float:
    """Its length."""
    return limits[1] - limits[0]


class GridGroups:
    """Union-find over tensor indexes; each group has a range and perhaps a fixed grid."""

    def __init__(self, ranges: Mapping[int, Range]):
        self._parent: dict[int, int] = {}
        self._ranges = dict(ranges)
        self._fixed: dict[int, ActivationGrid] = {}
        self._members: dict[int, set[int]] = {}

    def _root(self, index: int) -> int:
        while self._parent.get(index, index) != index:
            index = self._parent[index]
        return index

    def join(self, a: int, b: int) -> None:
        """Put two tensors, and all on their grids, on one."""
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        self._members[a] = self.members(a) | self.members(b)
        self._parent[b] = a
        self._ranges[a] = hull(self._ranges[a], self._ranges[b])
        if b in self._fixed:
            self._fixed.setdefault(a, self._fixed[b])

    def narrow(self, index: int, limits: Range) -> None:
        """Give the group of a tensor another range."""
        self._ranges[self._root(index)] = limits

    def members(self, index: int) -> set[int]:
        """All tensors on the grid of one."""
        root = self._root(index)
        return self._members.get(root, {root})

    def make_symmetric(self, index: int) -> None:
        """Widen the range so that the zero point is 0."""
        root = self._root(index)
        self._ranges[root] = symmetric_range(*self._ranges[root])

    def fix(self, index: int, grid: ActivationGrid) -> None:
        """Give the group of a tensor a grid that its range has no say in."""
        self._fixed[self._root(index)] = grid

    def fixed(self, index: int) -> ActivationGrid | None:
        """That grid."""
        return self._fixed.get(self._root(index))

    def range(self, index: int) -> Range:
        """The range of the group of a tensor."""
        return self._ranges[self._root(index)]

    def grid(self, index: int, bits: int) -> ActivationGrid:
        """Its grid of a width; a fixed one as it is."""
        fixed = self.fixed(index)
        return fixed if fixed is not None else activation_grid(*self.range(index), bits)
