"""How far the channels of a group may be scaled, as the data shows.

A channel that grows beyond the others widens the range of its tensor, and so the activation step of all of them: its
*headroom* ends at the largest magnitude of its tensor. Where a ReLU6 cuts a channel off, that channel cannot be scaled
at all: ``min(s x, 6)`` is not ``s min(x, 6)``. Channels below the clip level may be scaled while they stay below it.
The same headroom covers that: where a channel is cut off, the clip level is the largest magnitude of the tensor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.core.channel_graph import ChannelGraph, Tensor
from tfptq.core.channel_groups import ChannelGroups, runs_with_channels

#: A channel that came this near to its clip level is taken for one that was cut off.
_REACHED = 1.0 - 1e-6


@dataclass(frozen=True, eq=False)
class ChannelHeadroom:
    """How far the channels of one group may be scaled.

    Attributes:
        max_factor: float64 ``[C]``, ``>= 1``; infinite for a channel that was always zero.
        fixed: bool ``[C]``, channels that reached a clip level.
    """

    max_factor: np.ndarray
    fixed: np.ndarray


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Smallest and largest value and mean square of each channel of a tensor, float64 ``[C]``."""

    minimum: np.ndarray
    maximum: np.ndarray
    power: np.ndarray

    @property
    def magnitudes(self) -> np.ndarray:
        """Largest magnitude of each channel, ``[C]``."""
        return np.maximum(self.maximum, -self.minimum)

    @property
    def span(self) -> float:
        """Width of the range of the whole tensor, with 0 in it."""
        return float(max(self.maximum.max(), 0.0) - min(self.minimum.min(), 0.0))

    def scaled(self, factors: np.ndarray) -> "ChannelStatistics":
        """Statistics of channels that are multiplied by positive factors ``[C]``."""
        return ChannelStatistics(factors * self.minimum, factors * self.maximum, factors**2 * self.power)


def channel_headroom(
    graph: ChannelGraph, groups: ChannelGroups, observed: Mapping[Tensor, ChannelStatistics]
) -> dict[int, ChannelHeadroom]:
    """Headroom of each group, by its index.

    Args:
        graph: a network under ``Change.SCALE``.
        groups: its groups.
        observed: statistics of the tensors that limit the headroom.
    """
    max_factors = {group.index: np.full(group.size, np.inf) for group in groups.groups}
    fixed = {group.index: np.zeros(group.size, bool) for group in groups.groups}
    for tensor, channels in observed.items():
        magnitudes, level = channels.magnitudes, graph.producers[tensor].clip_level
        reached = magnitudes >= _REACHED * (np.inf if level is None else level)
        limits = np.divide(magnitudes.max(), magnitudes, out=np.full(len(magnitudes), np.inf), where=magnitudes > 0.0)
        for run, own in runs_with_channels(groups.tensors[tensor]):
            if run.group is not None:
                max_factors[run.group] = np.minimum(max_factors[run.group], limits[own])
                fixed[run.group] |= reached[own]
    return {index: ChannelHeadroom(max_factors[index], fixed[index]) for index in max_factors}


def limiting_tensors(graph: ChannelGraph, groups: ChannelGroups) -> list[Tensor]:
    """Tensors of groups that a layer with weights reads, or that an activation function may have cut off."""
    return [
        tensor
        for tensor in groups.tensors
        if graph.producers[tensor].clip_level is not None
        or any(step.name in groups.layers for step in graph.users(tensor))
    ]


def activation_tensors(graph: ChannelGraph, groups: ChannelGroups) -> list[Tensor]:
    """Tensors of groups that are activations of the quantized network.

    Those before an activation function alone count as none: most never leave the accumulators. A leaky ReLU has an
    operator of its own, and a grid before it; but of the noise there, the slope lets little through where values are
    negative, and it is such channels that have headroom.
    """
    return [
        tensor
        for tensor in groups.tensors
        if graph.producers[tensor].clip_level is not None
        or not graph.users(tensor)
        or not all(step.is_activation for step in graph.users(tensor))
    ]
