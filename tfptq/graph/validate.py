"""What a model must be so that it can be quantized; every refusal names the model or layer and says what to do."""

import keyword
import re

import keras
import numpy as np

from tfptq.base.text import kind_of
from tfptq.graph.flat_graph import FlatGraph

#: What TensorFlow takes as the name of a scope, and so of a layer.
SCOPE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def check_backend() -> None:
    """Refuse to run on another Keras backend than TensorFlow (a RuntimeError)."""
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"Keras runs on the backend {backend!r}; .tflite files come from TensorFlow only. Set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported"
        )


def check_model(model: keras.Model) -> None:
    """Refuse what is no Keras 3 model (a TypeError), or not built (a ValueError)."""
    if not isinstance(model, keras.Model):
        of_keras_2 = type(model).__module__.startswith("tf_keras")
        hint = " of Keras 2 (tf_keras): load or rebuild it with Keras 3" if of_keras_2 else ""
        raise TypeError(f"the model is {kind_of(model)}{hint}; pass a keras.Model of Keras 3, or the path of one")
    if not model.built:
        raise ValueError(
            f"the model {model.name!r} is not built: call model.build(input_shape) or give it a keras.Input first"
        )


def check_names(graph: FlatGraph) -> None:
    """Refuse names of inputs and layers that TensorFlow cannot export."""
    inputs = [config["name"] for config in graph.input_configs]
    bad_inputs = [name for name in inputs if not SCOPE_NAME.fullmatch(name) or keyword.iskeyword(name)]
    bad_layers = [unit.name for unit in graph.units if unit.operation is None and not SCOPE_NAME.fullmatch(unit.name)]
    for things, rule, names in (
        ("inputs", "ASCII letters, digits and _.-, and be no Python keyword", bad_inputs),
        ("layers", "ASCII letters, digits and _.-/", bad_layers),
    ):
        if names:
            raise ValueError(
                f"the model {graph.name!r} cannot be exported: names of {things} must consist of {rule}, not "
                f"{', '.join(map(repr, names))}. Build the model again with others, and copy the weights with "
                "set_weights"
            )


def check_weights(graph: FlatGraph) -> None:
    """Refuse models with non-finite weights."""
    for unit in graph.units:
        for name, array in unit.weights:
            bad = int(array.size - np.isfinite(array).sum())
            if bad:
                raise ValueError(
                    f"weight {name!r} of layer {unit.name!r} has {bad} of {array.size} values that are NaN or "
                    "infinite; train or load the model again"
                )
