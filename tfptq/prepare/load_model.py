"""Keras models from files, and models that cannot be quantized as they are."""

import importlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfptq.base.quiet import quiet
from tfptq.base.text import counted
from tfptq.graph.legacy_h5 import OPERATIONS, load_legacy_h5
from tfptq.graph.rebuild import unknown_class
from tfptq.layers import QuantizeAnnotate, wrappers


def refuse_simulations(model: keras.Model) -> None:
    """Refuse models that are quantized in Keras already (a ValueError)."""
    if isinstance(model, keras.Model) and wrappers(model):
        raise ValueError(
            f"the model {model.name!r} is a simulation of a quantized one; tfptq.export_simulation writes its file. "
            "To quantize it anew, take the wrappers off with tfptq.layers.strip"
        )
    _refuse_annotations(model)


def _refuse_annotations(model: keras.Model) -> None:
    """An annotation may hold any ``QuantizeConfig``, which the pipeline could not follow."""
    layers = model._flatten_layers() if isinstance(model, keras.Model) else ()
    marked = [layer.layer.name for layer in layers if isinstance(layer, QuantizeAnnotate)]
    if marked:
        raise ValueError(
            f"the model {model.name!r} has {counted(len(marked), 'annotated layer')}, the first {marked[0]!r}, and "
            "quantize_keras_model does not follow annotations. "
            "tfptq.export_simulation(tfptq.layers.quantize_apply(model), dataset) writes the file of what they say; or "
            "pass the model without quantize_annotate_layer, and say what differs by overrides of the config"
        )


def load_model(model: keras.Model | str | os.PathLike) -> keras.Model:
    """The model, or the one in a ``.keras`` or ``.h5`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file, or one that Keras cannot read; a class that Keras does not know is named.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    path = Path(model)
    if path.suffix not in (".keras", ".h5"):
        raise ValueError(
            f"the model file {path} must end in .keras, .h5 or .tflite, or be the folder of a SavedModel; save the "
            "model with model.save(path), or export it with model.export(folder)"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    with quiet():  # the first operator of a process looks for devices
        tf.config.list_logical_devices()
    try:
        return _read_model(path)
    except Exception as error:  # Keras raises all kinds on files that it does not understand
        unknown = unknown_class(error)
        if unknown in OPERATIONS:
            raise ValueError(
                f"the model file {path} holds operations on tensors as Keras 2 stored them ({unknown}), which Keras 3 "
                "cannot read; build the model anew by its code, with Keras 3, and fetch the weights with "
                "model.load_weights(path)"
            ) from error
        if unknown:
            raise ValueError(
                f"the model file {path} holds the custom class or function {unknown!r}, which Keras does not know; "
                f"load it with keras.saving.load_model(path, custom_objects={{{unknown!r}: ...}}) and pass the "
                "model, or register it with keras.saving.register_keras_serializable before"
            ) from error
        reason = str(error).strip().rstrip(".")
        raise ValueError(
            f"the model file {path} cannot be read: {reason}. Save the model again with model.save(path), or pass the "
            "keras.Model itself"
        ) from error


def written_by_keras_2(path: Path) -> bool:
    """Whether a path is that of a ``.keras`` file of Keras 2 (tf_keras), which Keras 3 cannot read."""
    if path.suffix != ".keras" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"]).startswith("2.")
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError):  # load_model says what is wrong with it
        return False


def load_keras_2(path: Path) -> Any:
    """The tf_keras model of a ``.keras`` file.

    Raises:
        ValueError: tf_keras is not installed, or cannot read it.
    """
    advice = "load it with the version of Keras that wrote it and pass the model, its SavedModel or its .tflite file"
    try:
        tf_keras = importlib.import_module("tf_keras")
    except ImportError as error:
        raise ValueError(
            f"the model file {path} was saved by Keras 2, which Keras 3 cannot read; install tf_keras, or {advice}"
        ) from error
    try:
        return tf_keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises all kinds on files that it does not understand
        reason = str(error).strip().rstrip(".")
        raise ValueError(
            f"the model file {path} was saved by Keras 2, and tf_keras cannot read it: {reason}. Instead, {advice}"
        ) from error


def _read_model(path: Path) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False)
    except (TypeError, ValueError):
        model = load_legacy_h5(path) if path.suffix == ".h5" else None
        if model is None:
            raise
        return model
