"""How far the channels of a group may be scaled, as the data shows.

A channel that grows beyond the others widens the range of its tensor, and so the activation step of all of them: its
*headroom* ends at the largest magnitude of its tensor. Where a ReLU6 cuts a channel off, that channel cannot be scaled
at all: ``min(s x, 6)`` is not ``s min(x, 6)``. Channels below the clip level may be scaled while they stay below it.
The same headroom covers that: where a channel is cut off, the clip level is the largest magnitude of the tensor.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
    graph: FlatGraph, groups: ChannelGroups, observed: Mapping[Value, ChannelStatistics]
) -> dict[int, ChannelHeadroom]:
    """Headroom of each group of ``find_groups(graph, Change.SCALE)``, by its index.

    Args:
        graph: graph of a canonical model.
        groups: its groups.
        observed: statistics of the tensors that limit the headroom.
    """
    max_factors = {group.index: np.full(group.size, np.inf) for group in groups.groups}
    fixed = {group.index: np.zeros(group.size, bool) for group in groups.groups}
    for value, channels in observed.items():
        magnitudes, level = channels.magnitudes, clip_level(graph.producers[value].unit)
        reached = magnitudes >= _REACHED * (np.inf if level is None else level)
        limits = np.divide(magnitudes.max(), magnitudes, out=np.full(len(magnitudes), np.inf), where=magnitudes > 0.0)
        for run, own in runs_with_channels(groups.values[value]):
            if run.group is not None:
                max_factors[run.group] = np.minimum(max_factors[run.group], limits[own])
                fixed[run.group] |= reached[own]
    return {index: ChannelHeadroom(max_factors[index], fixed[index]) for index in max_factors}


def limiting_tensors(graph: FlatGraph, groups: ChannelGroups) -> list[Value]:
    """Tensors of groups that a layer with weights reads, or that an activation function may have cut off."""
    return [
        value
        for value in groups.values
        if clip_level(graph.producers[value].unit) is not None
        or any(call.unit.name in groups.layers for call in graph.users(value))
    ]


def activation_tensors(graph: FlatGraph, groups: ChannelGroups) -> list[Value]:
    """Tensors of groups that are activations of the quantized model.

    Those before an activation function alone count as none: most never leave the accumulators. A leaky ReLU has an
    operator of its own, and a grid before it; but of the noise there, the slope lets little through where values are
    negative, and it is such channels that have headroom.
    """
    return [
        value
        for value in groups.values
        if clip_level(graph.producers[value].unit) is not None
        or not graph.users(value)
        or not all(map(is_activation, graph.users(value)))
    ]


class ChannelObserver:
    """Observes the channels of tensors of a graph; what it traces once serves for all batches of one shape."""

    def __init__(self, graph: FlatGraph, values: list[Value]):
        self._values = values
        # Any name is no TensorFlow scope.
        self._model = build_model(replace(graph, name="observed", outputs=values)) if values else None
        self._structure = graph.inputs
        self._traced: dict[tuple, Callable] = {}

    def observe(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[Value, ChannelStatistics]:
        """Statistics of all samples; at least one batch, input name -> samples."""
        if self._model is None:
            return {}
        widths, names = [value.channels for value in self._values], input_names(self._model)
        minimum, maximum = ([np.full(width, sign * np.inf) for width in widths] for sign in (1, -1))
        power, count = [np.zeros(width) for width in widths], 0
        for batch in batches:
            arrays = [batch[name] for name in names]
            with blaming_samples():
                found = self._reduced(self._model, arrays)
            for at, (low, high, square) in enumerate(found):
                minimum[at] = np.minimum(minimum[at], low.numpy())
                maximum[at] = np.maximum(maximum[at], high.numpy())
                power[at] += len(arrays[0]) * square.numpy()
            count += len(arrays[0])
        return {
            value: ChannelStatistics(low, high, square / count)
            for value, low, high, square in zip(self._values, minimum, maximum, power, strict=True)
        }

    def _reduced(self, model: keras.Model, arrays: list[np.ndarray]) -> list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Minimum, maximum and mean square of each channel of each tensor, for one batch."""
        # Concrete functions: TensorFlow warns of retracing where several networks are observed. One for each shape of
        # a batch: some layers cannot be traced with sizes that the model leaves open.
        shapes = tuple((tensor.shape[0], *array.shape[1:]) for tensor, array in zip(model.inputs, arrays, strict=True))
        if shapes not in self._traced:
            specs = [tf.TensorSpec(shape, tensor.dtype) for shape, tensor in zip(shapes, model.inputs, strict=True)]
            reduce = functools.partial(_reduce, model, self._structure)
            self._traced[shapes] = tf.function(reduce, autograph=False).get_concrete_function(specs)
        return self._traced[shapes]([tf.convert_to_tensor(array) for array in arrays])


def _reduce(model: keras.Model, structure: Any, arrays: list[tf.Tensor]):
    found = []
    for tensor in keras.tree.flatten(model(keras.tree.pack_sequence_as(structure, arrays), training=False)):
        axes = tuple(range(tensor.shape.rank - 1))
        squares = tf.reduce_mean(tf.square(tensor), axes)
        found.append((tf.reduce_min(tensor, axes), tf.reduce_max(tensor, axes), squares))
    return found
