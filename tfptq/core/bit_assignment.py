"""Widths of layers from their coding rates: the more bits a layer needs, the more it gets.

Two ways, both ordered (a layer never gets fewer bits than one with a smaller rate) and deterministic:

* ``cluster_bits``: the rates, sorted, are cut into as many runs as there are widths, so that the squared distance
  to the mean of each run is least (1-D k-means, solved exactly by dynamic programming). Runs get widths by their
  order alone, so that rates that hardly differ may get widths that do; there is no budget to compare widths by.
* ``assign_bits``: the best use of a budget. At high rates, one bit less costs the same factor of distortion in each
  layer, so the least total distortion for a number of bits gives each layer ``rate + t`` bits with one ``t`` for all
  (reverse water-filling; Cover and Thomas, "Elements of Information Theory", section 10.3). ``t`` rises from below;
  whenever it lifts a layer to its next allowed width, that step is taken if it still fits into the budget.

Bytes are those of packed codes, ``ceil(weights * bits / 8)`` for each layer; scales are not counted.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tfptq.core.affine import WEIGHT_BITS


def packed_bytes(size: int, bits: int) -> int:
    """Bytes of ``size`` codes of ``bits`` bits."""
    return -(-size * bits // 8)


def cluster_bits(
    rates: Mapping[str, float], bits: Sequence[int] = WEIGHT_BITS, pinned: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Assign widths by exact 1-D k-means over the rates.

    Args:
        rates: coding rate of each layer.
        bits: widths to choose from; with fewer distinct rates than widths, the largest widths stay unused.
        pinned: widths that are fixed; these layers do not take part.
    """
    pinned, bits = _checked(rates, bits, pinned)
    free = [name for name in rates if name not in pinned]
    values, index = np.unique([rates[name] for name in free], return_inverse=True)
    starts = _best_cuts(values, np.bincount(index, minlength=len(values)), min(len(bits), len(values)))
    cluster = np.searchsorted(starts, index, side="right") - 1
    chosen = pinned | {name: bits[number] for name, number in zip(free, cluster, strict=True)}
    return {name: chosen[name] for name in rates}


def assign_bits(
    rates: Mapping[str, float],
    sizes: Mapping[str, int],
    bits: Sequence[int] = WEIGHT_BITS,
    *,
    average_bits: float | None = None,
    budget_bytes: int | None = None,
    pinned: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Assign widths under a budget, ``average_bits`` or ``budget_bytes``, never above it; refused if none fits.

    Args:
        rates: coding rate of each layer, in bits per weight.
        sizes: number of weights of each layer.
        bits: widths to choose from.
        average_bits: bits per weight over the layers that are not pinned.
        budget_bytes: bytes of the codes of all layers, pinned ones included.
        pinned: widths that are fixed.
    """
    pinned, bits = _checked(rates, bits, pinned)
    if set(sizes) != set(rates):
        raise ValueError(f"sizes and rates name different layers: {sorted(set(sizes) ^ set(rates))}")
    free = sorted((name for name in rates if name not in pinned), key=lambda name: rates[name])

    def cost(name: str, width: int) -> int:
        return sizes[name] * width if budget_bytes is None else packed_bytes(sizes[name], width)

    if average_bits is not None and budget_bytes is None:
        available = average_bits * sum(sizes[name] for name in free)
    elif budget_bytes is not None and average_bits is None:
        available = budget_bytes - sum(cost(name, width) for name, width in pinned.items())
    else:
        raise ValueError("give either average_bits or budget_bytes")
    used = sum(cost(name, bits[0]) for name in free)
    if used > available:
        raise ValueError(
            f"the budget cannot be met: {len(free)} layers at {bits[0]} bits need {used}, "
            f"{max(available, 0):g} is left beside {len(pinned)} pinned layers; raise the budget or pin fewer layers"
        )
    chosen = pinned | _fill(free, rates, bits, cost, available - used)
    return {name: chosen[name] for name in rates}


def _checked(rates, bits, pinned) -> tuple[dict[str, int], tuple[int, ...]]:
    pinned, bits = dict(pinned or {}), tuple(sorted(set(bits)))
    if not bits or not set(bits) | set(pinned.values()) <= set(WEIGHT_BITS):
        raise ValueError(f"widths are {bits}, pinned {pinned}; each must be one of {WEIGHT_BITS}")
    if not set(pinned) <= set(rates):
        raise ValueError(f"pinned layers that have no rate: {sorted(set(pinned) - set(rates))}")
    unusable = [name for name, rate in rates.items() if not np.isfinite(rate)]
    if unusable:
        raise ValueError(f"the rates of {unusable} are not finite")
    return pinned, bits


def _fill(free, rates, bits, cost, available) -> dict[str, int]:
    """Raise layers (sorted by rate) from the smallest width as ``t`` rises, while the budget lasts."""
    level = [0] * len(free)
    steps = sorted((bits[k] - rates[name], -i, k) for i, name in enumerate(free) for k in range(1, len(bits)))
    for _, minus, k in steps:
        i = -minus
        price = cost(free[i], bits[k]) - cost(free[i], bits[k - 1])
        ordered = i + 1 == len(free) or level[i + 1] >= k  # the next larger rate already has this width
        if level[i] == k - 1 and ordered and price <= available:
            level[i], available = k, available - price
    return {name: bits[k] for name, k in zip(free, level, strict=True)}


def _best_cuts(values: np.ndarray, counts: np.ndarray, clusters: int) -> np.ndarray:
    """First index of each of ``clusters`` runs of sorted ``values`` with the least squared distance to run means."""
    if clusters == 0:
        return np.zeros(0, np.int64)
    total, first, second = (
        np.concatenate([[0.0], np.cumsum(term)]) for term in (counts, counts * values, counts * values**2)
    )

    def spread(start, end):  # squared distance of values[start:end] to their mean
        return second[end] - second[start] - (first[end] - first[start]) ** 2 / (total[end] - total[start])

    length = len(values)
    cost = np.array([0.0] + [np.inf] * length)
    choices = []
    for _ in range(clusters):
        options = [[cost[start] + spread(start, end) for start in range(end)] for end in range(1, length + 1)]
        choices.append([0] + [int(np.argmin(row)) for row in options])
        cost = np.array([np.inf] + [min(row) for row in options])
    cuts, end = [], length
    for choice in reversed(choices):
        end = choice[end]
        cuts.append(end)
    return np.array(cuts[::-1])
