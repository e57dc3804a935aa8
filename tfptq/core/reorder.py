"""Reordering of channels, so that similar ones share a block (PTQ-SL, arXiv 2110.07809, section 3.4).

A *channel group* is a set of channels that must keep one order everywhere: it numbers the output rows of the layers
that produce it and the input columns of those that read it. A permutation of the group leaves the network's function
unchanged and moves channels between blocks. The noise of rounding a block is ``|block| * S^2 / 12``, ``S`` in
proportion to the block's largest magnitude ``M``; the objective is

    J = sum over layers of  weight * sum over blocks of  |block| * M^2

with ``|block|`` in channel pairs. A layer's weight carries what all its blocks share: taps, ``1/(12 (2**(b-1)-1)^2)``
and one over the power of its weights.

**Search.** For one group, with all others fixed, every layer reduces to features ``F[c, f]`` of the channels (maxima
over the blocks of the other axis) and a block size ``m``; its part of ``J`` is ``m * sum of the squared maxima of F in
each block``. Start from the best of several sorts of the channels and of greedy fillings of the blocks; then swap
pairs: one channel against all others at once, each exchange evaluated through the largest and second largest feature
of each block. Groups take turns for some rounds; from the second on they go on from their current order. Each new order
is kept only if it lowers the full objective, so the result is never worse than the start.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from tfptq.core.blocks import run_maxima

#: Most passes of swaps over all channels of a group, and most feature comparisons, in one turn: a limit on time.
_PASSES, _COMPARISONS = 4, 2_000_000_000
#: A swap gains at least this share of what its channel's leaving would. Sums of single precision features are no more
#: exact than that; less would be noise, and channels would be swapped back and forth.
_LEAST_SWAP = 1e-5
#: A new order of a group lowers the objective, summed in double precision, by at least this share: well above its
#: rounding, and far below any gain worth having.
_LEAST_PROGRESS = 1e-9
#: What is added to squared features, whose largest is 1, before their logarithm is taken: far below all that count.
_NEXT_TO_NOTHING = 1e-12


@dataclass(frozen=True)
class AxisSegment:
    """Where a channel group lies on an axis of a layer.

    Channel ``c`` of the group is at the position ``offset + c``. Offsets come from Concatenate; after Flatten a group
    has several segments.
    """

    group: str  # name of the group
    offset: int = 0  # first position


@dataclass(frozen=True, eq=False)
class BlockedLayer:
    """A layer as the search sees it."""

    maxima: np.ndarray  # float ``[O, I]``, magnitude of each channel pair (the largest over its taps)
    block_shape: tuple[int, int]  # ``(m, n)`` in channels
    rows: tuple[AxisSegment, ...] = ()  # groups on the output axis
    columns: tuple[AxisSegment, ...] = ()  # groups on the input axis
    weight: float = 1.0  # what the squared maxima of this layer count for


@dataclass(frozen=True, eq=False)
class Reordering:
    """Result of ``reorder``."""

    permutations: dict[str, np.ndarray]  # for each group the old channel at each new place, int64
    before: np.ndarray  # noise objective of each layer in the old order
    after: np.ndarray  # the same in the new order; its sum is at most that of ``before``


def reorder(
    layers: list[BlockedLayer],
    sizes: dict[str, int],
    rounds: int = 3,
    advance: Callable[[int], None] = lambda done: None,
) -> Reordering:
    """Find an order of the channels of each group that lowers the block noise.

    Args:
        layers: all layers that a group touches.
        sizes: number of channels of each group.
        rounds: how often each group may take its turn; the search ends when a round changes nothing.
        advance: called with the number of groups that had their turn.
    """
    for layer in layers:
        _check(layer, sizes)
    permutations = {group: np.arange(size) for group, size in sizes.items()}
    before = np.array([layer_noise(layer, permutations) for layer in layers])
    for turn in range(rounds):
        improved = False
        for group in sizes:
            improved |= _improve(group, layers, permutations, afresh=turn == 0)
            advance(1)
        if not improved:
            break
    after = np.array([layer_noise(layer, permutations) for layer in layers])
    return Reordering(permutations, before, after)


def layer_noise(layer: BlockedLayer, permutations: dict[str, np.ndarray]) -> float:
    """Noise of one layer, ``weight * sum |block| * M^2``, with its groups in the given orders."""
    moved = permuted_maxima(layer, permutations)
    (m, n), (outputs, inputs) = layer.block_shape, moved.shape
    maxima = run_maxima(run_maxima(moved, m, axis=0), n, axis=1)
    return float(layer.weight * (_block_sizes(outputs, m) @ maxima**2 @ _block_sizes(inputs, n)))


def permuted_maxima(layer: BlockedLayer, permutations: dict[str, np.ndarray]) -> np.ndarray:
    """The layer's maxima, float64 ``[O, I]``, with its groups in the given orders."""
    orders = [
        axis_order(segments, size, permutations)
        for segments, size in zip((layer.rows, layer.columns), layer.maxima.shape, strict=True)
    ]
    return layer.maxima[np.ix_(*orders)].astype(np.float64)


def axis_order(segments: tuple[AxisSegment, ...], size: int, permutations: dict[str, np.ndarray]) -> np.ndarray:
    """Old position at each new position of an axis, int64 ``[size]``."""
    order = np.arange(size)
    for segment in segments:
        permutation = permutations[segment.group]
        order[segment.offset : segment.offset + len(permutation)] = segment.offset + permutation
    return order


def _check(layer: BlockedLayer, sizes: dict[str, int]) -> None:
    for name, segments, length in zip(
        ("rows", "columns"), (layer.rows, layer.columns), layer.maxima.shape, strict=True
    ):
        for segment in segments:
            if segment.group not in sizes:
                raise ValueError(f"{name} of a layer name the unknown channel group {segment.group!r}")
            last = segment.offset + sizes[segment.group]
            if last > length or segment.offset < 0:
                raise ValueError(
                    f"channel group {segment.group!r} ends at {last} on the {name} of a layer with only {length}"
                )


def _block_sizes(length: int, size: int) -> np.ndarray:
    """Lengths of the blocks of an axis, the last one ragged; float64."""
    return np.diff(np.append(np.arange(0, length, size), length)).astype(np.float64)


def _improve(group: str, layers: list[BlockedLayer], permutations: dict[str, np.ndarray], afresh: bool) -> bool:
    """Give one group a better order, in place; tells whether there was one. Looks for a new start if ``afresh``."""
    touched = [layer for layer in layers if any(s.group == group for s in layer.rows + layer.columns)]
    current = permutations[group]
    views = _views(group, touched, permutations)
    if not views:
        return False
    candidates = [_swap(views, np.arange(len(current)))]
    if afresh:
        starts = [*_sorted_orders(views), *(_filled_order(view) for view in views)]
        candidates.append(_swap(views, min(starts, key=lambda order: _surrogate(views, order))))
    noise = sum(layer_noise(layer, permutations) for layer in touched)
    best = None
    for order in candidates:
        found = sum(layer_noise(layer, {**permutations, group: current[order]}) for layer in touched)
        if found < noise * (1.0 - _LEAST_PROGRESS):
            noise, best = found, order
    if best is None:
        return False
    permutations[group] = current[best]
    return True


@dataclass(frozen=True, eq=False)
class _View:
    """What one layer knows of the channels of a group: squared features ``[C, f]`` and the block of each place."""

    features: np.ndarray
    blocks: np.ndarray  # [C], ascending from 0
    starts: np.ndarray  # first place of each block


def _views(group: str, layers: list[BlockedLayer], permutations: dict[str, np.ndarray]) -> list[_View]:
    """Views of all layers, for the channels in their current order; those with equal blocks are joined."""
    joined: dict[bytes, tuple[np.ndarray, list[np.ndarray]]] = {}
    size = len(permutations[group])
    for features, blocks in _features(group, size, layers, permutations):
        joined.setdefault(blocks.tobytes(), (blocks, []))[1].append(features)
    views = []
    for blocks, parts in joined.values():
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))
        views.append(_View(np.concatenate(parts, axis=1), blocks, starts))
    # One block, or one channel in each: every order is as good.
    return [view for view in views if 1 < len(view.starts) < size]


def _features(
    group: str, size: int, layers: list[BlockedLayer], permutations: dict[str, np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Squared, weighted features ``[C, f]`` and block numbers ``[C]`` of every occurrence of the group."""
    for layer in layers:
        moved = permuted_maxima(layer, permutations)
        for values, segments, sizes in (
            (moved, layer.rows, layer.block_shape),
            (moved.T, layer.columns, layer.block_shape[::-1]),
        ):
            if not any(segment.group == group for segment in segments):
                continue
            across = run_maxima(values, sizes[1], axis=1)
            squared = layer.weight * _block_sizes(values.shape[1], sizes[1]) * across**2  # [axis, f]
            for segment in segments:
                if segment.group == group:
                    start = segment.offset
                    blocks = (np.arange(start, start + size) // sizes[0]) - start // sizes[0]
                    yield squared[start : start + size], blocks


def _surrogate(views: list[_View], order: np.ndarray) -> float:
    """The group's part of the objective. Exact when no block reaches beyond an occurrence of the group."""
    return sum(
        float(
            np.diff(np.append(view.starts, len(order))) @ np.maximum.reduceat(view.features[order], view.starts).sum(1)
        )
        for view in views
    )


def _sorted_orders(views: list[_View]) -> list[np.ndarray]:
    """Sorts by several sizes of the channels, falling."""
    features = np.concatenate([view.features / (view.features.max() or 1.0) for view in views], axis=1)
    keys = [view.features.max(axis=1) for view in views] + [view.features.sum(axis=1) for view in views]
    keys += [features.max(axis=1), features.sum(axis=1), np.log(features + _NEXT_TO_NOTHING).sum(axis=1)]
    return [np.argsort(-key, kind="stable") for key in keys]


def _filled_order(view: _View) -> np.ndarray:
    """Fill block after block, each time with the channel whose features are nearest to the block's maxima."""
    left = np.argsort(-view.features.sum(axis=1), kind="stable")
    order = []
    for size in np.diff(np.append(view.starts, len(left))):
        largest, first = view.features[left[0]], 0
        for _ in range(size):
            order.append(left[first])
            largest = np.maximum(largest, view.features[left[first]])
            left = np.delete(left, first)
            if len(left):
                first = int(np.argmin(np.abs(view.features[left] - largest).sum(axis=1)))
    return np.array(order)


def _swap(views: list[_View], order: np.ndarray) -> np.ndarray:
    """Local search: swap pairs of channels while the surrogate falls."""
    order = order.copy()
    unit = max(view.features.max() for view in views) or 1.0
    placements = [_Placement(view, order, unit) for view in views]
    comparisons = sum(view.features.size for view in views)  # of one channel with all others
    turns = _COMPARISONS // comparisons
    for _ in range(_PASSES):
        burden = reduce(np.add, [placement.burden() for placement in placements])
        # A swap that helps has a channel whose leaving helps its block; starting from those finds them all.
        places = [place for place in np.argsort(-burden, kind="stable") if burden[place] > 0.0][:turns]
        turns -= len(places)
        swaps = 0
        for place in places:
            gains = reduce(np.add, [placement.gains(place) for placement in placements])
            other = int(np.argmax(gains))
            if gains[other] <= _LEAST_SWAP * burden[place]:
                continue
            swaps += 1
            order[[place, other]] = order[[other, place]]
            for placement in placements:
                placement.swap(place, other)
        if not swaps:
            break
    return order


class _Placement:
    """The channels of one view at their places, ready to evaluate swaps."""

    def __init__(self, view: _View, order: np.ndarray, unit: float):
        self.blocks, self.starts = view.blocks, view.starts
        self.stops = np.append(view.starts[1:], len(order))
        self.placed = (view.features[order] / unit).astype(np.float32)  # [C, f]; single precision is twice as fast
        self.others = np.zeros_like(self.placed)  # largest of the block without the channel, [C, f]
        self.total = np.zeros(len(order))  # sum of the largest of the channel's block, [C]
        self.sizes = (self.stops - self.starts)[view.blocks].astype(np.float64)  # [C]
        for block in range(len(view.starts)):
            self._refresh(block)

    def burden(self) -> np.ndarray:
        """By how much each block would fall without each of its channels, ``[C]``."""
        return self.sizes * (self.total - self.others.sum(axis=1))

    def gains(self, place: int) -> np.ndarray:
        """By how much the objective falls when the channel here is swapped with each other one, ``[C]``."""
        here = np.maximum(self.others[place], self.placed).sum(axis=1)
        there = np.maximum(self.others, self.placed[place]).sum(axis=1)
        gains = self.sizes[place] * (self.total[place] - here) + self.sizes * (self.total - there)
        gains[self.blocks == self.blocks[place]] = 0.0
        return gains

    def swap(self, place: int, other: int) -> None:
        """Swap two channels."""
        self.placed[[place, other]] = self.placed[[other, place]]
        for block in {int(self.blocks[place]), int(self.blocks[other])}:
            self._refresh(block)

    def _refresh(self, block: int) -> None:
        inside = slice(self.starts[block], self.stops[block])
        members = self.placed[inside]
        if len(members) == 1:
            second, first = np.zeros_like(members[0]), members[0]
        else:
            second, first = np.partition(members, -2, axis=0)[-2:]
        self.others[inside] = np.where(members >= first, second, first)
        self.total[inside] = first.sum()
