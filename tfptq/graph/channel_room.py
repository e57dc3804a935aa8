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

from tfptq.data.errors import blaming_samples
from tfptq.graph.channel_groups import ChannelGroups, runs_with_channels
from tfptq.graph.channel_rules import clip_level, is_activation
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


@dataclass(frozen=True, eq=False)
class ChannelValues:
    """What the channels of a tensor hold.

    Attributes:
        lowest: float64 ``[C]``, smallest value of each channel.
        highest: float64 ``[C]``, largest value.
        power: float64 ``[C]``, mean square.
    """

    lowest: np.ndarray
    highest: np.ndarray
    power: np.ndarray

    @property
    def magnitudes(self) -> np.ndarray:
        """Largest magnitude of each channel, ``[C]``."""
        return np.maximum(self.highest, -self.lowest)

    @property
    def span(self) -> float:
        """Width of the range of the whole tensor, with 0 in it."""
        return float(max(self.highest.max(), 0.0) - min(self.lowest.min(), 0.0))

    def scaled(self, factors: np.ndarray) -> "ChannelValues":
        """What they hold when each is multiplied by a positive factor, ``[C]``."""
        return ChannelValues(factors * self.lowest, factors * self.highest, factors**2 * self.power)


def channel_room(
    graph: FlatGraph, groups: ChannelGroups, measured: Mapping[Value, ChannelValues]
) -> dict[int, ChannelRoom]:
    """Find the room of every channel.

    Args:
        graph: graph of a canonical model.
        groups: ``analyse(graph, Change.SCALE)``.
        measured: the tensors that may limit the room, as a ``ChannelMeter`` saw them.

    Returns:
        {group index: its room}.
    """
    rooms = {
        group.index: ChannelRoom(np.full(group.size, np.inf), np.zeros(group.size, bool)) for group in groups.groups
    }
    for value, channels in measured.items():
        magnitudes, level = channels.magnitudes, clip_level(graph.producers[value].unit)
        reached = magnitudes >= _REACHED * (np.inf if level is None else level)
        growth = np.divide(magnitudes.max(), magnitudes, out=np.full(len(magnitudes), np.inf), where=magnitudes > 0.0)
        for run, own in runs_with_channels(groups.values[value]):
            if run.group is not None:
                room = rooms[run.group]
                rooms[run.group] = replace(
                    room, growth=np.minimum(room.growth, growth[own]), fixed=room.fixed | reached[own]
                )
    return rooms


def multiplied_values(graph: FlatGraph, groups: ChannelGroups) -> list[Value]:
    """Tensors of groups that a layer multiplies with its weights, or that an activation function may have cut off."""
    return [
        value
        for value in groups.values
        if clip_level(graph.producers[value].unit) is not None
        or any(call.unit.name in groups.layers for call in graph.users(value))
    ]


def activations(graph: FlatGraph, groups: ChannelGroups) -> list[Value]:
    """Tensors of groups that are activations of the quantized model.

    Those before an activation function alone count as none: most never leave the accumulators. A leaky ReLU has an
    operator of its own, and a grid before it; but of the noise there, the slope lets little through where values are
    negative, and it is such channels that have room.
    """
    return [
        value
        for value in groups.values
        if clip_level(graph.producers[value].unit) is not None
        or not graph.users(value)
        or not all(map(is_activation, graph.users(value)))
    ]


class ChannelMeter:
    """Runs a model and looks at the channels of some tensors; what it traces serves for all measurements.

    Args:
        graph: graph of a canonical model.
        values: its tensors.
    """

    def __init__(self, graph: FlatGraph, values: list[Value]):
        self._values = values
        # Any name is no TensorFlow scope.
        self._model = build_model(replace(graph, name="measured", outputs=values)) if values else None
        self._structure = graph.inputs
        self._traced = {}

    def measure(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[Value, ChannelValues]:
        """Measure all samples.

        Args:
            batches: input name -> samples; at least one batch.

        Raises:
            DataError: the model fails on a batch.
        """
        if not self._values:
            return {}
        widths, names = [value.shape[-1] for value in self._values], input_names(self._model)
        lowest, highest = ([np.full(width, sign * np.inf) for width in widths] for sign in (1, -1))
        power, count = [np.zeros(width) for width in widths], 0
        for batch in batches:
            arrays = [batch[name] for name in names]
            with blaming_samples():
                found = self._reduced(arrays)
            for at, (low, high, square) in enumerate(found):
                lowest[at] = np.minimum(lowest[at], low.numpy())
                highest[at] = np.maximum(highest[at], high.numpy())
                power[at] += len(arrays[0]) * square.numpy()
            count += len(arrays[0])
        return {
            value: ChannelValues(low, high, square / count)
            for value, low, high, square in zip(self._values, lowest, highest, power, strict=True)
        }

    def _reduced(self, arrays: list[np.ndarray]) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Smallest and largest value and mean square of each channel of each tensor, for one batch."""
        # Concrete functions: TensorFlow warns of retracing where several networks are measured, each with a function
        # anew. One for the sizes of each kind of batch: some layers cannot be traced with sizes that the model leaves
        # open.
        inputs = self._model.inputs
        shapes = tuple((tensor.shape[0], *array.shape[1:]) for tensor, array in zip(inputs, arrays, strict=True))
        if shapes not in self._traced:
            specs = [tf.TensorSpec(shape, tensor.dtype) for shape, tensor in zip(shapes, inputs, strict=True)]
            self._traced[shapes] = tf.function(self._reduce, autograph=False).get_concrete_function(specs)
        return self._traced[shapes]([tf.convert_to_tensor(array) for array in arrays])

    def _reduce(self, arrays):
        inputs = keras.tree.pack_sequence_as(self._structure, arrays)
        found = []
        for tensor in keras.tree.flatten(self._model(inputs, training=False)):
            axes = tuple(range(tensor.shape.rank - 1))
            squares = tf.reduce_mean(tf.square(tensor), axes)
            found.append((tf.reduce_min(tensor, axes), tf.reduce_max(tensor, axes), squares))
        return found
