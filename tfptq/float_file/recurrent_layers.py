"""How recurrent layers of Keras are traced for a float file: as one operator, unrolled, or as Keras has them, a loop.

Keras 3 computes a recurrent layer as a loop, and the TFLite converter writes one: a WHILE with lists of states, which
no kernel runs on integers and which hangs in TFLite Micro.

An LSTM calls a TensorFlow function that the converter takes for one operator of a name of its own;
``tfptq.float_file.lstm_operators`` makes ``UNIDIRECTIONAL_SEQUENCE_LSTM`` of it. Other layers can be unrolled
(``tfptq.float_file.unroll``).
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfptq.float_file.lstm_operators import MARK
from tfptq.float_file.unroll import can_unroll, unrolled


@dataclass(frozen=True, eq=False)
class RecurrentLayer:
    """A recurrent layer of a model.

    Attributes:
        layer: the layer.
        owner: the layer of the model that it is, or that it is in: a Bidirectional one.
        steps: length of its sequences; None where it is open.
        most_steps: length up to which it shall be unrolled.
    """

    layer: keras.layers.RNN
    owner: keras.Layer
    steps: int | None
    most_steps: int

    @property
    def path(self) -> str:
        """Names of both."""
        return self.layer.name if self.layer is self.owner else f"{self.owner.name}/{self.layer.name}"

    @property
    def obstacle(self) -> str | None:
        """Why no operator computes it, as far as it tells itself, worded to follow its name; or None."""
        if type(self.layer) is not keras.layers.LSTM:
            return f"is a {type(self.layer).__name__}, and there are operators for LSTM alone"
        functions = self.layer.cell.activation, self.layer.cell.recurrent_activation
        if functions != (keras.activations.tanh, keras.activations.sigmoid):
            names = ", ".join(getattr(function, "__name__", str(function)) for function in functions)
            return f"has the functions {names}, and the kernels tanh, sigmoid"
        for name, problem in (("stateful", "keeps"), ("return_state", "returns")):
            if getattr(self.layer, name):
                return f"{problem} its state"
        return None

    @property
    def unrolls(self) -> bool:
        """Whether it is unrolled, as far as it tells itself."""
        return can_unroll(self.layer, self.steps, self.most_steps)


def never(layer: str) -> int:
    """No layer is unrolled."""
    del layer
    return 0


def recurrent_layers(model: keras.Model, steps_of: Callable[[str], int]) -> list[RecurrentLayer]:
    """The recurrent layers of a model, and in Bidirectional ones, that are not unrolled by Keras.

    ``steps_of`` gives the length up to which a layer is unrolled, by its name.
    """
    found: dict[int, RecurrentLayer] = {}
    for owner in model._flatten_layers():
        both = type(owner) is keras.layers.Bidirectional
        for layer in (owner.forward_layer, owner.backward_layer) if both else (owner,):
            if isinstance(layer, keras.layers.RNN) and not layer.unroll and (both or id(layer) not in found):
                found[id(layer)] = RecurrentLayer(layer, owner, _steps(owner), steps_of(owner.name))
    return list(found.values())


def _steps(layer: keras.Layer) -> int | None:
    """Length of the sequences of a layer; None where it is open, differs, or is not known."""
    shapes = [keras.tree.flatten(node.arguments.args)[0].shape for node in layer._inbound_nodes]
    lengths = {shape[1] for shape in shapes if len(shape) > 2}
    return lengths.pop() if len(lengths) == 1 else None


@contextlib.contextmanager
def traced(layers: Iterable[RecurrentLayer]) -> Iterator[None]:
    """Inside this context recurrent layers are traced step by step, or as operators, where they can be.

    Those with masks stay as they are, and so do those with a given state that are not unrolled.
    """
    layers = [each for each in layers if each.obstacle is None or can_unroll(each.layer, 1, each.most_steps)]
    for each in layers:
        each.layer.call = _call_of(each)
    try:
        yield
    finally:
        for each in layers:
            del each.layer.call


def _call_of(recurrent: RecurrentLayer) -> Callable:
    """What a layer calls in place of its own ``call``."""
    layer, path, operator = recurrent.layer, recurrent.path, recurrent.obstacle is None
    own = layer.call

    def call(sequences, initial_state=None, mask=None, training=False):
        sequences = tf.convert_to_tensor(sequences)
        if mask is None and can_unroll(layer, sequences.shape[1], recurrent.most_steps):
            return unrolled(layer, sequences, initial_state)
        if mask is None and initial_state is None and operator:
            return _marked(layer, path, sequences)
        return own(sequences, initial_state=initial_state, mask=mask, training=training)

    return call


def _marked(layer: keras.layers.LSTM, path: str, sequences: tf.Tensor) -> tf.Tensor:
    """What an LSTM returns, of a function that the converter takes for one operator."""
    cell = layer.cell

    def implementation(sequence, kernel, recurrent, bias):
        del kernel, recurrent, bias
        return tf.zeros([cell.units]) * sequence[:, :, :1]  # the shape alone counts

    bias = tf.zeros([4 * cell.units]) if cell.bias is None else tf.convert_to_tensor(cell.bias)
    kernels = tf.convert_to_tensor(cell.kernel), tf.convert_to_tensor(cell.recurrent_kernel)
    attributes = f'name: "{MARK}{path}" attr {{ key: "tfl_fusable_op" value {{ b: true }} }}'
    function = tf.function(implementation, experimental_implements=attributes)
    sequences = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
    results = function(sequences, *kernels, bias)
    return results if layer.return_sequences else results[:, -1]
