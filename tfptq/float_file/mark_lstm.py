"""Let the TFLite converter leave LSTM layers of Keras whole.

Keras 3 computes an LSTM as a loop, and the converter writes one: a WHILE with lists of states, which no kernel runs on
integers and which hangs in TFLite Micro. While ``marked`` holds, an LSTM calls a TensorFlow function that the converter
takes for one operator of a name of its own; ``tfptq.float_file.lstm_operators`` makes ``UNIDIRECTIONAL_SEQUENCE_LSTM``
of it.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

from tfptq.float_file.lstm_operators import MARK

#: A layer, and the names of the layers that it is in and of itself, joined by "/".
NamedLayer = tuple[keras.layers.LSTM, str]


@contextlib.contextmanager
def marked(layers: Iterable[NamedLayer]) -> Iterator[None]:
    """Inside this context some LSTM layers are traced as one operator each."""
    layers = list(layers)
    for layer, path in layers:
        layer.call = _call_of(layer, path)
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.call


def lstm_layers(model: keras.Model) -> list[NamedLayer]:
    """The LSTM layers in a model, and in Bidirectional ones, that the operator can compute."""
    found: dict[int, NamedLayer] = {}
    for layer in model._flatten_layers():
        inner = (layer.forward_layer, layer.backward_layer) if type(layer) is keras.layers.Bidirectional else (layer,)
        for each in inner:
            if type(each) is keras.layers.LSTM and obstacle(each) is None:
                path = each.name if each is layer else f"{layer.name}/{each.name}"
                if id(each) not in found or each is not layer:
                    found[id(each)] = each, path
    return list(found.values())


def obstacle(layer: keras.layers.LSTM) -> str | None:
    """Why the operator cannot compute a layer, worded to follow its name, or None."""
    functions = layer.cell.activation, layer.cell.recurrent_activation
    if functions != (keras.activations.tanh, keras.activations.sigmoid):
        names = ", ".join(getattr(function, "__name__", str(function)) for function in functions)
        return f"has the functions {names}, and the kernels tanh, sigmoid"
    if layer.unroll:
        return "is unrolled"
    if layer.stateful:
        return "keeps its state"
    if layer.return_state:
        return "returns its state, which the kernels keep to themselves"
    return None


def _call_of(layer: keras.layers.LSTM, path: str) -> Callable:
    """What a layer calls in place of its own ``call``, where neither a state nor a mask is given."""
    own, cell = layer.call, layer.cell

    def implementation(sequence, kernel, recurrent, bias):
        del kernel, recurrent, bias
        return tf.zeros([cell.units]) * sequence[:, :, :1]  # the shape alone counts

    def call(sequences, initial_state=None, mask=None, training=False):
        if initial_state is not None or mask is not None:
            return own(sequences, initial_state=initial_state, mask=mask, training=training)
        bias = tf.zeros([4 * cell.units]) if cell.bias is None else tf.convert_to_tensor(cell.bias)
        kernels = tf.convert_to_tensor(cell.kernel), tf.convert_to_tensor(cell.recurrent_kernel)
        sequences = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
        attributes = f'name: "{MARK}{path}" attr {{ key: "tfl_fusable_op" value {{ b: true }} }}'
        function = tf.function(implementation, experimental_implements=attributes)
        results = function(tf.convert_to_tensor(sequences), *kernels, bias)
        return results if layer.return_sequences else results[:, -1]

    return call
