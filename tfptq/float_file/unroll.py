"""Recurrent layers of Keras step by step, as ordinary operators.

What the input adds to all gates is one product over the whole sequence; a step multiplies the state with the recurrent
kernel, and applies functions. Steps start from zeros, or from states that are given, so that the state can go in and
out of a file. Equations: those of ``GRUCell``, ``LSTMCell`` and ``SimpleRNNCell`` of Keras.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

#: From the input of a step, if any was there before, and the states, to the new states; the first is the result.
Step = Callable[[Any, Sequence[tf.Tensor | None]], list[tf.Tensor]]


def can_unroll(layer: keras.Layer, steps: int | None, most: int) -> bool:
    """Whether a layer is a plain recurrent one of at most so many ``steps``, None where they are not known."""
    plain = type(layer) in (keras.layers.GRU, keras.layers.LSTM, keras.layers.SimpleRNN)
    return plain and not layer.stateful and steps is not None and steps <= most


def unrolled(layer: keras.layers.RNN, sequences: tf.Tensor, initial_state: Any) -> Any:
    """What a layer returns for a sequence ``[B, T, I]`` with known ``T``."""
    sequences = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
    inputs, step = _STEPS[type(layer)](layer.cell, sequences)
    given = [] if initial_state is None else keras.tree.flatten(initial_state)
    states: list[tf.Tensor | None] = given or [None] * len(keras.tree.flatten(layer.cell.state_size))
    results = []
    for values in inputs:
        states = [*step(values, states)]
        results.append(states[0])
    result = tf.stack(results, axis=1) if layer.return_sequences else results[-1]
    return (result, *states) if layer.return_state else result


def _over_time(name: str, sequences: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None) -> list[tf.Tensor]:
    """``x[t] W + b`` for all steps."""
    with _scope(name):
        products = keras.ops.matmul(sequences, kernel)
        return tf.unstack(products if bias is None else products + bias, axis=1)


def _scope(name: str):
    """What kernels go by in the file; Keras adds a number to its scopes, too."""
    return tf.name_scope(f"{name}_1")


def _of_state(name: str, state: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    with _scope(name):
        product = tf.matmul(state, kernel)
        return product if bias is None else product + bias


def _simple(cell: keras.layers.SimpleRNNCell, sequences: tf.Tensor) -> tuple[list[tf.Tensor], Step]:
    recurrent = tf.convert_to_tensor(cell.recurrent_kernel)

    def step(x, states):
        (h,) = states
        total = x if h is None else x + _of_state("recurrent_kernel", h, recurrent, None)
        return [cell.activation(total)]

    return _over_time("kernel", sequences, *_weights(cell)), step


def _lstm(cell: keras.layers.LSTMCell, sequences: tf.Tensor) -> tuple[list[tf.Tensor], Step]:
    recurrent = tf.convert_to_tensor(cell.recurrent_kernel)

    def step(x, states):
        h, c = states
        total = x if h is None else x + _of_state("recurrent_kernel", h, recurrent, None)
        added, kept, proposed, shown = tf.split(total, 4, axis=1)
        added = cell.recurrent_activation(added) * cell.activation(proposed)
        c = added if c is None else cell.recurrent_activation(kept) * c + added
        return [cell.recurrent_activation(shown) * cell.activation(c), c]

    return _over_time("kernel", sequences, *_weights(cell)), step


def _gru(cell: keras.layers.GRUCell, sequences: tf.Tensor) -> tuple[list[tf.Tensor], Step]:
    """Gates apart from the candidate, whose recurrent part a gate multiplies."""
    gates = 2 * cell.units
    kernel, bias = _weights(cell)
    recurrent, recurrent_bias = tf.convert_to_tensor(cell.recurrent_kernel), None
    if bias is not None and cell.reset_after:
        bias, recurrent_bias = bias[0], bias[1]

    def part(values, of_gates: bool):
        return None if values is None else values[..., :gates] if of_gates else values[..., gates:]

    xs = [
        _over_time(name, sequences, part(kernel, of_gates), part(bias, of_gates))
        for name, of_gates in (("gates", True), ("candidate", False))
    ]

    def of_state(name: str, state, of_gates: bool):
        if state is None:
            return part(recurrent_bias, of_gates)
        return _of_state(f"recurrent_{name}", state, part(recurrent, of_gates), part(recurrent_bias, of_gates))

    def step(x, states):
        (h,) = states
        update, reset = tf.split(cell.recurrent_activation(_sum(x[0], of_state("gates", h, True))), 2, axis=1)
        if cell.reset_after:
            reset_state = of_state("candidate", h, False)
            reset_state = None if reset_state is None else reset * reset_state
        else:
            reset_state = None if h is None else of_state("candidate", reset * h, False)
        candidate = cell.activation(_sum(x[1], reset_state))
        return [candidate - update * candidate if h is None else candidate + update * (h - candidate)]

    return list(zip(*xs, strict=True)), step


def _sum(x: tf.Tensor, other: tf.Tensor | None) -> tf.Tensor:
    return x if other is None else x + other


def _weights(cell: keras.Layer) -> tuple[tf.Tensor, tf.Tensor | None]:
    return tf.convert_to_tensor(cell.kernel), None if cell.bias is None else tf.convert_to_tensor(cell.bias)


_STEPS: dict[type, Callable[[Any, tf.Tensor], tuple[list, Step]]] = {
    keras.layers.GRU: _gru,
    keras.layers.LSTM: _lstm,
    keras.layers.SimpleRNN: _simple,
}
