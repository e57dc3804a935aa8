"""Float Keras model -> float ``.tflite``: the float file that the emitter fills with integers.

The batch stays dynamic where the converter can do that. It cannot for the loops of recurrent layers, whose lists of
states need a known size; models with such layers are converted for one sample at a time.
"""

import contextlib
import logging
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from tfptq.base.quiet import quiet
from tfptq.float_file.lstm_operators import write_marked
from tfptq.float_file.recurrent_layers import RecurrentLayer, never, recurrent_layers, traced
from tfptq.graph.read_graph import graph_of
from tfptq.graph.validate import SCOPE_NAME
from tfptq.tflite.model import TFLiteModel

#: The operator that the converter names when the states of a loop have a dynamic batch.
STATE_LIST = "TensorListReserve"
#: How lines of the converter start that add nothing to the error before them.
NOTE = "<unknown>:0: note:"
#: After this the converter prints the whole graph, in hundreds of lines.
GRAPH_FOLLOWS = f"{NOTE} see current operation: \n"
#: What the converter says of an operator that TFLite lacks, and where in the model that is.
MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
PLACE = re.compile(r'fused\["(\w+):", "([^"@]+)')
#: Operators whose name does not tell what in a model they come from.
ORIGINS = {"BitwiseAnd": "keras.ops.argmax and argmin of floats need it, tf.argmax and tf.argmin do not"}

#: Standard output, warnings and loggers belong to the process: two threads would put back what the other one set.
_ONE_AT_A_TIME = threading.Lock()


def convert_float(model: keras.Model, single: bool = False, steps_of: Callable[[str], int] = never) -> bytes:
    """Convert a Keras model to a float ``.tflite`` with the stock converter, quietly.

    The batch of the file is that of the model; it is 1 where the model leaves it open and has recurrent layers that are
    not unrolled, or where the file shall take a ``single`` sample at a time. Names of tensors and signatures are the
    converter's.

    Args:
        model: the model.
        single: whether the file shall take one sample at a time.
        steps_of: name of a recurrent layer -> length of sequences up to which it is unrolled.

    Raises:
        ValueError: the converter refuses the model; its own words are in the message.
    """
    if single and any(tensor.shape[0] != 1 for tensor in model.inputs):
        return _convert_for_one(model, steps_of)
    if any(tensor.shape[0] is not None for tensor in model.inputs):
        return _convert(model, steps_of)
    # The converter would print its complaints about a dynamic batch.
    if not all(each.unrolls for each in recurrent_layers(model, steps_of)):
        return _convert(_with_batch_of_one(model), steps_of)
    try:
        return _convert(model, steps_of)
    except ValueError as error:  # a custom layer may hold a loop as well
        if STATE_LIST not in str(error.__cause__):
            raise
    return _convert(_with_batch_of_one(model), steps_of)


def _convert_for_one(model: keras.Model, steps_of: Callable[[str], int]) -> bytes:
    """The file for one sample at a time; a ValueError where a model of a fixed batch counts on that."""
    try:
        data = _convert(_with_batch_of_one(model), steps_of)
        _check_batch_of_one(data)  # with tf_keras in the process, the converter may take the model as it was
        return data
    except ValueError as error:
        if model.inputs[0].shape[0] is None:
            raise
        raise ValueError(
            f"the model {model.name!r} cannot take one sample at a time, as batch_size=1 asks for: it has a fixed "
            f"batch of {model.inputs[0].shape[0]}, and some operation in it counts on that ({error}). Build it with an "
            "open batch, keras.Input(shape)"
        ) from error


def _convert(model: keras.Model, steps_of: Callable[[str], int]) -> bytes:
    with _quiet():
        try:
            return convert_recurrent(recurrent_layers(model, steps_of), lambda custom: _converted(model, custom))
        except (AttributeError, TypeError, ValueError, RuntimeError, tf.errors.OpError, ConverterError) as error:
            if _nested_outputs(model):
                raise ValueError(
                    f"the TFLite converter cannot export the model {model.name!r}: outputs must be one tensor, or a "
                    "list or dict of tensors without further lists or dicts in it. Build the model again with others"
                ) from error
            raise ValueError(
                f"the TFLite converter cannot convert the model {model.name!r}: {_reason(error)}. "
                f"{_advice(model, error)}"
            ) from error


def _converted(model: keras.Model, custom: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        converter = _converter(model, folder)
        converter.allow_custom_ops = custom
        return converter.convert()


def convert_recurrent(layers: Sequence[RecurrentLayer], convert: Callable[[bool], bytes]) -> bytes:
    """What a conversion gives, with operators and unrolled steps in the place of loops of recurrent layers.

    Args:
        layers: the recurrent layers.
        convert: converts their model; the argument is whether operators of other names than TFLite's may be left.
    """
    others = [each for each in layers if each.unrolls or each.obstacle is not None]
    if len(others) < len(layers):
        with traced(layers):
            data = write_marked(convert(True))
        if data is not None:
            return data
    with traced(others):
        return convert(False)


def convert_saved_model(folder: str, name: str, signature: str = "serving_default", custom: bool = False) -> bytes:
    """Convert a signature of a SavedModel to a float ``.tflite``, quietly.

    Args:
        folder: the SavedModel.
        name: of the model, for messages.
        signature: key of the signature.
        custom: whether operators of other names than TFLite's may be left.

    Raises:
        ValueError: the converter refuses the model; its own words are in the message.
    """
    return _convert_other(
        name, lambda: tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature]), custom
    )


def convert_function(function: Any, owner: Any, name: str) -> bytes:
    """Convert a concrete function to a float ``.tflite``, quietly, with its variables as constants.

    Args:
        function: the function.
        owner: what holds its variables.
        name: of the model, for messages.

    Raises:
        ValueError: the converter refuses the function; its own words are in the message.
    """
    return _convert_other(name, lambda: tf.lite.TFLiteConverter.from_concrete_functions([function], owner))


def _convert_other(name: str, make: Callable[[], tf.lite.TFLiteConverter], custom: bool = False) -> bytes:
    with _quiet():
        try:
            converter = make()
            converter.allow_custom_ops = custom
            return converter.convert()
        except (AttributeError, TypeError, ValueError, RuntimeError, tf.errors.OpError, ConverterError) as error:
            raise ValueError(
                f"the TFLite converter cannot convert the model {name!r}: {_reason(error)}. Replace the layers it "
                "names, or set their computation outside of the model"
            ) from error


def _reason(error: Exception) -> str:
    """The operators that TFLite lacks; else the converter's words, without its notes on calls and without the graph."""
    missing = dict.fromkeys(MISSING.findall(str(error)))
    if missing:
        places = dict(reversed(PLACE.findall(str(error))))  # the first place of each
        named = [f"{kind} (in {places[kind]!r})" if kind in places else kind for kind in missing]
        origins = [f"; {ORIGINS[kind]}" for kind in missing if kind in ORIGINS]
        return f"TFLite has no operator for {', '.join(named)}{''.join(origins)}"
    lines = str(error).partition(GRAPH_FOLLOWS)[0].splitlines()
    return "\n".join(line for line in lines if not line.startswith(NOTE)).strip().rstrip(".")


def _advice(model: keras.Model, error: Exception) -> str:
    """What to do about an error that no name in the model explains."""
    open_inputs = [tensor.name for tensor in model.inputs if None in tensor.shape[1:]]
    if not open_inputs:
        return "Replace the layers it names, or set their computation outside of the model."
    sizes = (
        f"sizes that are left open (None), which inputs {', '.join(map(repr, open_inputs))} have: "
        "build the model again with all sizes in keras.Input(shape), and copy the weights with set_weights."
    )
    if isinstance(error, (AttributeError, TypeError)):  # it computed with None
        return f"The cause may be {sizes}"
    return f"Replace the layers it names, or set their computation outside of the model. Or the cause is {sizes}"


def _converter(model: keras.Model, folder: str) -> tf.lite.TFLiteConverter:
    """The stock converter; ``from_keras_model`` of TensorFlow 2.16 aborts on Keras 3, a saved model does not."""
    major, minor = map(int, tf.__version__.split(".")[:2])
    if (major, minor) > (2, 16):
        return tf.lite.TFLiteConverter.from_keras_model(_exportable(model))
    _exportable(model).export(folder)
    return tf.lite.TFLiteConverter.from_saved_model(folder)


def _exportable(model: keras.Model) -> keras.Model:
    """The same model under a name that TensorFlow takes as a scope, with its inputs in a list.

    The file does not hold the model's name, and names its inputs one by one.
    """
    function = graph_of(model)
    listed = not isinstance(function._inputs_struct, dict)
    if listed and SCOPE_NAME.fullmatch(model.name):
        return model
    return keras.Model(
        function._inputs_struct if listed else model.inputs,
        function._outputs_struct,
        name=model.name if SCOPE_NAME.fullmatch(model.name) else "model",
    )


def _nested_outputs(model: keras.Model) -> bool:
    """Whether outputs lie in lists or dicts within others, which the converter cannot name."""
    structure = graph_of(model)._outputs_struct
    members = list(structure.values()) if isinstance(structure, dict) else structure
    return isinstance(members, (list, tuple)) and any(isinstance(member, (list, tuple, dict)) for member in members)


def _check_batch_of_one(data: bytes) -> None:
    file = TFLiteModel(data)
    for index in file.subgraph.inputs:
        if file.sizes(index)[:1] != [1]:
            raise ValueError(f"the TFLite converter leaves the input {file.name(index)!r} with {file.sizes(index)}")


def _with_batch_of_one(model: keras.Model) -> keras.Model:
    """The same model, sharing its weights, for batches of one sample."""
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name),
        model.input,
    )
    return keras.Model(inputs, model(inputs), name=model.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Turn the export's printed summary, its warnings, and the converter's lines to the log."""
    with _ONE_AT_A_TIME, quiet() as log, contextlib.redirect_stdout(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = tf.get_logger()
        handlers, propagate = logger.handlers, logger.propagate
        logger.handlers, logger.propagate = [logging.StreamHandler(log)], False
        try:
            yield
        finally:
            logger.handlers, logger.propagate = handlers, propagate
