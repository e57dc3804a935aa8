"""A float file from a function on tensors: of models of Keras, or of tf_keras, whose graph is not known.

The function is traced and saved as TensorFlow saves any function, with the model's own variables, which stay as they
are.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tfptq.data.errors import blaming_samples
from tfptq.float_file.convert import STATE_LIST, convert_recurrent, convert_saved_model
from tfptq.float_file.file_model import FileInput, FileModel, inputs_of, of_file
from tfptq.float_file.foreign_file import main_signature, read_float_model
from tfptq.float_file.recurrent_layers import RecurrentLayer
from tfptq.tflite.model import TFLiteModel

Call = Callable[[Mapping[str, Any]], Any]
_NO_IDENTIFIER = re.compile(r"\W+")


def traced_model(
    name: str, call: Call, inputs: Sequence[FileInput], reason: str, layers: Sequence[RecurrentLayer] = ()
) -> FileModel:
    """Convert what a function computes; for one sample at a time where it has loops over a batch of open size.

    Args:
        name: of the model.
        call: inputs by name -> outputs of inference, in any structure.
        inputs: the inputs, in the order of the model.
        reason: why no Keras graph is known.
        layers: the recurrent layers of Keras 3 that it calls.

    Raises:
        ValueError: the function cannot be traced or converted.
    """
    for_one = [replace(each, shape=(1, *each.shape[1:])) for each in inputs]
    inputs = for_one if layers and inputs[0].shape[0] is None else inputs
    try:
        data = convert_recurrent(layers, partial(_converted, name, call, inputs))
    except ValueError as error:
        if STATE_LIST not in str(error.__cause__):
            raise
        inputs = for_one
        data = convert_recurrent(layers, partial(_converted, name, call, inputs))
    model = read_float_model(data, name)
    by_argument = {_argument(each.name): each for each in inputs}
    in_file = tuple(by_argument[each.name] for each in inputs_of(model, name))
    _name_signature(model, by_argument)
    found = of_file(name, model, in_file, _runner(call), reason)
    return replace(found, inputs=tuple(inputs))


def _converted(name: str, call: Call, inputs: Sequence[FileInput], custom: bool) -> bytes:
    names = [each.name for each in inputs]
    specs = [tf.TensorSpec(each.shape, each.dtype, name=_argument(each.name)) for each in inputs]

    def flat(*tensors):
        return _named_outputs(call(dict(zip(names, tensors, strict=True))))

    with tempfile.TemporaryDirectory() as folder:
        try:
            function = tf.function(flat, input_signature=specs).get_concrete_function()
            holder = tf.Module()
            holder.held = list(function.variables)  # what is saved must belong to something
            tf.saved_model.save(holder, folder, signatures=function)
        except (AssertionError, AttributeError, TypeError, ValueError, RuntimeError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
            shapes = ", ".join(f"{each.name!r} {list(each.shape)}" for each in inputs)
            raise ValueError(
                f"the model {name!r} cannot be traced on inputs of the shapes {shapes}: {reason}. Give samples as the "
                "model takes them, and let its call() use operations on tensors only"
            ) from error
        return convert_saved_model(folder, name, custom=custom)


def _named_outputs(structure: Any) -> dict[str, tf.Tensor]:
    """Outputs by name: the keys of a dict, else numbers."""
    if isinstance(structure, Mapping) and all(tf.is_tensor(value) for value in structure.values()):
        return {_argument(str(key)): value for key, value in structure.items()}
    return {f"output_{number}": value for number, value in enumerate(tf.nest.flatten(structure))}


def _argument(name: str) -> str:
    """A name as an argument of a function may have it."""
    cleaned = _NO_IDENTIFIER.sub("_", name)
    return cleaned if cleaned.isidentifier() else f"input_{cleaned}"


def _name_signature(model: TFLiteModel, by_argument: Mapping[str, FileInput]) -> None:
    """Give the inputs of the file the names that they have in the model."""
    for entry in main_signature(model).inputs:
        entry.name = by_argument[entry.name.decode()].name.encode()


def _runner(call: Call) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    def run(batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with blaming_samples():
            outputs = call({name: tf.constant(values) for name, values in batch.items()})
        return [np.asarray(value) for value in tf.nest.flatten(outputs)]

    return run
