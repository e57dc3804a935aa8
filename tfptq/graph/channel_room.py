"""How far the channels of a group may be scaled, as the data shows.

A channel that grows beyond the others widens the range of its tensor, and so the activation step of all of them. So a
channel has *room* up to the largest magnitude of its tensor. And where a ReLU6 cuts a channel off, that channel cannot
be scaled at all: ``min(s x, 6)`` is not ``s min(x, 6)``. Channels that stay below the clip level may, as far as they
stay below it. That is the same room: a tensor that some channel is cut off in has the clip level as its largest
magnitude, and in one where no channel is, nobody comes closer to the level than the largest does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from tfptq.graph.channel_groups import ChannelGroups
from tfptq.graph.channel_rules import clip_level
from tfptq.graph.flat_graph import FlatGraph, Value
from tfptq.graph.rebuild import build_model, input_names

#: A channel that came this near to its clip level is taken for one that was cut off.
_REACHED = 1.0 - 1e-6


@dataclass(frozen=True, eq=False)
class ChannelRoom:
    """What the data says about scaling the channels of one group.

    Attributes:
        growth: float64 ``[C]``, largest factor for each channel, ``>= 1``; infinite for one that was always zero.
        fixed: bool ``[C]``, channels that reached a clip level.
    """

    growth: np.ndarray
    fixed: np.ndarray


def channel_room(
    graph: FlatGraph, groups: ChannelGroups, batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[int, ChannelRoom]:
    """Measure the room of every channel.

    Args:
        graph: graph of a canonical model.
        groups: ``analyse(graph, scaling=True)``.
        batches: input name -> samples; at least one batch.

    Returns:
        {group index: its room}.
    """
    largest = _largest_magnitudes(graph, [value for value in groups.values if _matters(graph, groups, value)], batches)
    rooms = {
        group.index: ChannelRoom(np.full(group.size, np.inf), np.zeros(group.size, bool)) for group in groups.groups
    }
    for value, magnitudes in largest.items():
        level = clip_level(graph.producers[value].unit)
        reached = magnitudes >= _REACHED * (np.inf if level is None else level)
        growth = np.divide(magnitudes.max(), magnitudes, out=np.full(len(magnitudes), np.inf), where=magnitudes > 0.0)
        start = 0
        for segment in groups.values[value]:
            run = slice(start, start := start + segment.size)
            if segment.group is not None:
                room = rooms[segment.group]
                rooms[segment.group] = replace(
                    room, growth=np.minimum(room.growth, growth[run]), fixed=room.fixed | reached[run]
                )
    return rooms


def _matters(graph: FlatGraph, groups: ChannelGroups, value: Value) -> bool:
    """Whether a layer multiplies a tensor with its weights, or an activation function may have cut it off.

    Others, such as the sums before a ReLU, are no activations of the quantized model.
    """
    return clip_level(graph.producers[value].unit) is not None or any(
        call.unit.name in groups.layers for call in graph.users(value)
    )


def _largest_magnitudes(
    graph: FlatGraph, values: list[Value], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[Value, np.ndarray]:
    """Value -> largest magnitude of each channel, float64 ``[C]``."""
    model = build_model(replace(graph, outputs=values))
    names = input_names(model)

    @tf.function(autograph=False, reduce_retracing=True)
    def reduce(arrays):
        tensors = keras.tree.flatten(model(keras.tree.pack_sequence_as(graph.inputs, arrays), training=False))
        return [tf.reduce_max(tf.abs(tensor), axis=tuple(range(tensor.shape.rank - 1))) for tensor in tensors]

    found = [np.zeros(value.shape[-1]) for value in values]
    for batch in batches:
        seen = reduce([tf.convert_to_tensor(batch[name]) for name in names])
        found = [np.maximum(old, new.numpy()) for old, new in zip(found, seen, strict=True)]
    return dict(zip(values, found, strict=True))
