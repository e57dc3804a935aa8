"""Operations that Keras traces to what TFLite has no operator for, computed by what it has.

* ``argmax`` and ``argmin`` of floats: Keras tells 0 from -0 by the bits of the numbers. Here they are equal.
* ``roll`` along axes of known size: a split and a concatenation.
"""

from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf
from keras.src.ops import numpy as operations  # The operation classes behind keras.ops.

from tfptq.graph.flat_graph import FlatGraph, Unit


@keras.saving.register_keras_serializable(package="tfptq")
class Argmax(operations.Argmax):
    """``keras.ops.argmax``."""

    def call(self, x):
        """Position of the largest value."""
        return _position_of(tf.argmax, x, self.axis, self.keepdims)


@keras.saving.register_keras_serializable(package="tfptq")
class Argmin(operations.Argmin):
    """``keras.ops.argmin``."""

    def call(self, x):
        """Position of the smallest value."""
        return _position_of(tf.argmin, x, self.axis, self.keepdims)


@keras.saving.register_keras_serializable(package="tfptq")
class Roll(operations.Roll):
    """``keras.ops.roll``."""

    def call(self, x):
        """Values moved along axes, the last ones to the front."""
        axes = [] if self.axis is None else keras.tree.flatten(self.axis)
        if not axes or any(x.shape[axis] is None for axis in axes):
            return super().call(x)
        for axis, shift in zip(axes, keras.tree.flatten(self.shift), strict=True):
            last = int(shift) % x.shape[axis]
            first, second = tf.split(x, [x.shape[axis] - last, last], axis)
            x = tf.concat([second, first], axis) if last else x
        return x


def _position_of(find: Any, x: tf.Tensor, axis: int | None, keepdims: bool) -> tf.Tensor:
    if axis is None:
        found = find(tf.reshape(x, [-1]), axis=0, output_type=tf.int32)
        return tf.reshape(found, [1] * len(x.shape)) if keepdims else found
    found = find(x, axis=axis, output_type=tf.int32)
    return tf.expand_dims(found, axis) if keepdims else found


def make_convertible(graph: FlatGraph) -> FlatGraph:
    """Replace these operations by others that compute the same."""
    made = {call.unit: _convertible(call.unit) for call in graph.calls if call.unit.kind in _MADE}
    return graph.replace_units(made)


def _convertible(unit: Unit) -> Unit:
    assert unit.operation is not None
    kind = _MADE[unit.kind]
    return replace(unit, kind=kind, operation=kind(*(getattr(unit.operation, name) for name in _ARGUMENTS[kind])))


_MADE = {operations.Argmax: Argmax, operations.Argmin: Argmin, operations.Roll: Roll}
_ARGUMENTS = {Argmax: ("axis", "keepdims"), Argmin: ("axis", "keepdims"), Roll: ("shift", "axis")}
