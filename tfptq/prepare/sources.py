"""What users pass as a model: Keras models of any kind, tf_keras models, SavedModels, ``.tflite`` files, and paths.

A Keras model with a graph stays one. All else is taken as a float file (``FileModel``).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfptq.data.checks import InputSpec, input_specs
from tfptq.data.open_dataset import first_element
from tfptq.float_file.convert import convert_function, convert_saved_model
from tfptq.float_file.file_model import FileInput, FileModel, tflite_model
from tfptq.float_file.foreign_file import reads_lost_variables
from tfptq.float_file.recurrent_layers import never, recurrent_layers
from tfptq.float_file.traced_model import traced_model
from tfptq.graph.read_graph import UnknownGraphError, graph_of, input_names
from tfptq.graph.validate import check_backend
from tfptq.prepare.load_model import load_keras_2, written_by_keras_2

#: The file that makes a folder a SavedModel.
SAVED_MODEL = "saved_model.pb"
_DEFAULT_SIGNATURE = "serving_default"


def is_tf_keras(model: Any) -> bool:
    """Whether a model is one of tf_keras, Keras 2; the package need not be there."""
    return any(kind.__module__.partition(".")[0] == "tf_keras" for kind in type(model).__mro__)


def file_source(source: Any, dataset: Any, signature: str | None) -> FileModel | None:
    """The float file of a source that is no Keras 3 model, or None where it is one or the path of one.

    Args:
        source: what the user passed as a model.
        dataset: what the user passed as a dataset; it tells the inputs of models that do not.
        signature: signature to take from a file or SavedModel.

    Raises:
        ValueError: it cannot be read or converted, or a signature is asked for of what has none.
        FileNotFoundError: no file at the path.
    """
    check_backend()
    if isinstance(source, bytes | bytearray):
        return tflite_model(bytes(source), signature)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix == ".tflite":
            return tflite_model(path, signature)
        if path.is_dir():
            return _saved_model(path, signature)
        if written_by_keras_2(path):
            source = load_keras_2(path)
    if signature is not None:
        raise ValueError(f"signature={signature!r} is for .tflite files and SavedModels; Keras models have none")
    return _tf_keras_model(source, dataset) if is_tf_keras(source) else None


def known_inputs(model: keras.Model | FileModel) -> tuple[InputSpec, ...]:
    """What calibration data must be, as far as the model tells: nothing of a subclassed one, which samples tell."""
    if isinstance(model, FileModel):
        return model.specs
    try:
        graph_of(model)
    except UnknownGraphError:
        return ()
    return input_specs(model)


def keras_file_model(model: keras.Model, dataset: Any, reason: str) -> FileModel:
    """The float file of a Keras 3 model that is not taken apart; it shares the variables of the model, which stay.

    Raises:
        ValueError: it is not built, computes in another type than float32, or cannot be converted.
    """
    for layer in model._flatten_layers():
        if layer.compute_dtype in ("float16", "bfloat16", "float64"):
            raise ValueError(
                f"layer {layer.name!r} of {model.name!r} computes in {layer.compute_dtype}, and the model cannot be "
                f"rebuilt in float32 ({reason}); build it with keras.config.set_dtype_policy('float32') and copy the "
                "weights"
            )
    try:
        structure, names, specs = graph_of(model)._inputs_struct, input_names(model), input_specs(model)
        batch = model.inputs[0].shape[0]
        inputs = [FileInput(name, (batch, *spec.shape), spec.dtype) for name, spec in zip(names, specs, strict=True)]
    except UnknownGraphError:
        structure = _structure_of_samples(model, dataset)
        inputs = _inputs_of_samples(structure)

    def call(tensors):
        return model(_packed(structure, inputs, tensors), training=False)

    return traced_model(model.name, call, inputs, reason, recurrent_layers(model, never))


def _tf_keras_model(model: Any, dataset: Any) -> FileModel:
    """The float file of a tf_keras model, which brings all that is needed with it."""
    if not model.built:
        raise ValueError(f"the model {model.name!r} is not built: call it on samples, or load its weights, first")
    structure: Any
    if getattr(model, "inputs", None):
        structure = model.input
        inputs = [
            FileInput(name, tuple(tensor.shape), tf.as_dtype(tensor.dtype).name)
            for name, tensor in zip(model.input_names, model.inputs, strict=True)
        ]
    else:
        structure = _structure_of_samples(model, dataset)
        inputs = _inputs_of_samples(structure)
    training = {"training": False} if model._expects_training_arg else {}

    def call(tensors):
        return model(_packed(structure, inputs, tensors), **training)

    return traced_model(model.name, call, inputs, "it is a model of tf_keras")


def _saved_model(folder: Path, signature: str | None) -> FileModel:
    if not (folder / SAVED_MODEL).is_file():
        raise ValueError(f"the folder {folder} is no SavedModel: it has no {SAVED_MODEL}")
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(f"the SavedModel {folder} cannot be loaded: {error}") from error
    keys = list(loaded.signatures)
    wanted = signature or (_DEFAULT_SIGNATURE if _DEFAULT_SIGNATURE in keys else next(iter(keys), None))
    if wanted is None or wanted not in keys:
        asked = "to convert" if signature is None else repr(signature)
        listed = ", ".join(keys) or "none"
        raise ValueError(f"the SavedModel {folder} has no signature {asked}; its signatures: {listed}")
    function = loaded.signatures[wanted]
    data = convert_saved_model(str(folder), folder.name, wanted)
    if reads_lost_variables(data):
        data = convert_function(function, loaded, folder.name)
    found = tflite_model(data)

    def run(batch):
        return [np.asarray(value) for value in function(**{k: tf.constant(v) for k, v in batch.items()}).values()]

    return FileModel(folder.name, found.float_file, found.inputs, run, "a SavedModel holds no Keras graph")


def _structure_of_samples(model: Any, dataset: Any) -> Any:
    """The first samples of a dataset, for a model that does not tell its inputs."""
    if dataset is None:
        raise ValueError(
            f"{model.name!r} ({type(model).__name__}) does not tell the shapes of its inputs, and there are no samples "
            "that would; pass some, or build the model with keras.Input"
        )
    return first_element(dataset)


def _inputs_of_samples(structure: Any) -> list[FileInput]:
    """Inputs of a model that does not tell them, as samples have them; the batch is open."""
    if isinstance(structure, Mapping):
        named = {str(key): value for key, value in structure.items()}
    elif isinstance(structure, list | tuple):
        named = {f"input_{number}": value for number, value in enumerate(structure)}
    else:
        named = {"inputs": structure}
    arrays = {name: np.asarray(value) for name, value in named.items()}
    return [FileInput(name, (None, *array.shape[1:]), _type_of(array)) for name, array in arrays.items()]


def _type_of(array: np.ndarray) -> str:
    return {"f": "float32", "b": "bool"}.get(array.dtype.kind, "int32")


def _packed(structure: Any, inputs: list[FileInput], tensors: Mapping[str, Any]) -> Any:
    """Tensors by name, in the structure that the model takes."""
    if isinstance(structure, Mapping) and {each.name for each in inputs} == set(map(str, structure)):
        return {key: tensors[str(key)] for key in structure}
    return tf.nest.pack_sequence_as(structure, [tensors[each.name] for each in inputs])
