"""Reading ``.h5`` files that Keras 2 wrote and Keras 3 refuses.

Keras 2 stored fields of its base classes with every layer, such as ``groups=1`` of a depthwise convolution, and let
names of layers have slashes. Fields without effect are removed from a copy of the file; one with an effect, such as
``time_major=True``, stays and is refused by Keras.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import keras

#: The classes of operations that are no layers.
OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
#: The attribute of a file that holds the config of the model.
_CONFIG = "model_config"

_Fields = dict[str, tuple | None]
_NOT_GROUPED: _Fields = {"groups": (1,)}
#: What a separable convolution has of its base class beside the depthwise and the pointwise kernel.
_NO_KERNEL: _Fields = {"kernel_initializer": None, "kernel_regularizer": None, "kernel_constraint": None}
_TIME_SECOND: _Fields = {"time_major": (False,)}
_NO_GENERATOR: _Fields = {"rng_type": None}
_NO_MASK: _Fields = {"trainable": None, "noise_shape": None}
#: Class -> field -> the values without effect; None for any value.
_NEUTRAL: dict[str, _Fields] = {
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _NOT_GROUPED),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _NOT_GROUPED | _NO_KERNEL),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _NOT_GROUPED | _NO_KERNEL),
    **dict.fromkeys(("GRU", "LSTM", "RNN", "SimpleRNN"), _TIME_SECOND),
    **dict.fromkeys(("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"), _NO_MASK),
    **dict.fromkeys(
        ("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast"), _NO_GENERATOR
    ),
    # Keras 3 learns the shapes from calls, and is robust against masks of whole rows in any case.
    "MultiHeadAttention": dict.fromkeys(("query_shape", "key_shape", "value_shape", "softmax_robust_masking")),
    "Attention": {"score_mode": ("dot",)},  # Keras 3 reads the name of its default as that of a function
}
#: Classes that Keras 2 built for one shape, and Keras 3 for several.
_BUILT_BY_CALLS = ("MultiHeadAttention",)


def load_legacy_h5(path: Path) -> keras.Model | None:
    """Load a file that Keras refused, without the fields of Keras 2 that have no effect; None if it has none.

    Raises:
        OSError: no HDF5 file.
        TypeError: Keras refuses what is left, too.
        ValueError: the same.
    """
    with h5py.File(path) as file:
        text = file.attrs.get(_CONFIG)
    if text is None:
        return None
    config = json.loads(text)
    changed = _without_slashes(_without_neutral_fields(config))
    if changed == config:
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs[_CONFIG] = json.dumps(changed)
        return keras.models.load_model(copy, compile=False)


def _without_neutral_fields(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_neutral_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_neutral_fields(item) for key, item in value.items()}
    if value.get("class_name") in _BUILT_BY_CALLS:
        value.pop("build_config", None)
        value["inbound_nodes"] = list(map(_node_with_tensors, value.get("inbound_nodes", [])))
    fields, neutral = value.get("config"), _NEUTRAL.get(value.get("class_name", ""), {})
    if isinstance(fields, dict):
        value["config"] = {key: item for key, item in fields.items() if key not in neutral or _acts(item, neutral[key])}
    return value


def _node_with_tensors(node: Any) -> Any:
    """A call with tensors among its named arguments, ``attention(x, value=x)``, as Keras 3 stores it.

    Keras 3 reads those of Keras 2, ``[[layer, call, output, arguments]]``, as plain lists.
    """
    if not (isinstance(node, list) and len(node) == 1 and len(node[0]) == 4):
        return node
    *first, named = node[0]
    return {"args": [_tensor(first)], "kwargs": {key: _tensor(item) for key, item in named.items()}}


def _tensor(item: Any) -> Any:
    """A reference to a tensor, ``[layer, call, output]``, in the form of Keras 3; anything else as it is."""
    if not (isinstance(item, list) and len(item) >= 3 and isinstance(item[0], str)):
        return item
    config = {"shape": [None], "dtype": "float32", "keras_history": item[:3]}
    return {"class_name": "__keras_tensor__", "config": config}


def _acts(item: Any, neutral: tuple | None) -> bool:
    return neutral is not None and item not in neutral


def _without_slashes(config: Any) -> Any:
    """Rename layers that have slashes in their names, and what refers to them."""
    renamed = {name: name.replace("/", "_") for name in _layer_names(config) if "/" in name}

    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(item) for item in value]
        if isinstance(value, dict):
            return {key: rename(item) for key, item in value.items()}
        return renamed.get(value, value) if isinstance(value, str) else value

    return rename(config) if renamed else config


def _layer_names(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _layer_names(item)]
    if not isinstance(value, dict):
        return []
    names = [name for item in value.values() for name in _layer_names(item)]
    fields = value.get("config")
    if "class_name" in value and isinstance(fields, dict) and isinstance(fields.get("name"), str):
        names.append(fields["name"])
    return names
