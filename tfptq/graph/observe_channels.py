"""Observe the channels of tensors of a Keras graph."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfptq.core.channel_headroom import ChannelStatistics
from tfptq.data.errors import blaming_samples
from tfptq.graph.flat_graph import FlatGraph, Value
from tfptq.graph.read_graph import input_names
from tfptq.graph.rebuild import build_model


class ChannelObserver:
    """Observes the channels of tensors of a graph; what it traces once serves for all batches of one shape."""

    def __init__(self, graph: FlatGraph, values: Sequence[Value]):
        self._values = list(values)
        # Any name is no TensorFlow scope.
        self._model = build_model(replace(graph, name="observed", outputs=self._values)) if values else None
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
