"""Reading ``.h5`` files that Keras 2 wrote and Keras 3 refuses.

Keras 2 stored fields of its base classes with every layer, such as ``groups=1`` of a depthwise convolution, and let
names of layers have slashes. Fields that say nothing are taken out of a copy of the file here; one that does say
something, such as ``time_major=True``, stays and is refused by Keras.
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

_NOT_GROUPED = {"groups": (1,)}
#: What a separable convolution has of its base class beside the depthwise and the pointwise kernel.
_NO_KERNEL = {"kernel_initializer": None, "kernel_regularizer": None, "kernel_constraint": None}
_TIME_SECOND = {"time_major": (False,)}
_NO_GENERATOR = {"rng_type": None}
_NO_MASK = {"trainable": None, "noise_shape": None}
#: Class -> field -> the values that say nothing; None for any value.
_IDLE: dict[str, dict[str, tuple | None]] = {
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _NOT_GROUPED),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _NOT_GROUPED | _NO_KERNEL),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _NOT_GROUPED | _NO_KERNEL),
    **dict.fromkeys(("GRU", "LSTM", "RNN", "SimpleRNN"), _TIME_SECOND),
    **dict.fromkeys(("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"), _NO_MASK),
    **dict.fromkeys(
        ("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast"), _NO_GENERATOR
    ),
    "Attention": {"score_mode": ("dot",)},  # Keras 3 reads the name of its default as that of a function
}


def load_legacy_h5(path: Path) -> keras.Model | None:
    """Load a file without the fields of Keras 2 that say nothing.

    Args:
        path: an ``.h5`` file that Keras refused.

    Returns:
        The model, of plain Keras layers; None if there is nothing in the file that could be left out.

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
    changed = _without_slashes(_without_idle_fields(config))
    if changed == config:
        return None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs[_CONFIG] = json.dumps(changed)
        return keras.models.load_model(copy, compile=False)


def _without_idle_fields(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_idle_fields(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_idle_fields(item) for key, item in value.items()}
    fields, idle = value.get("config"), _IDLE.get(value.get("class_name"), {})
    if isinstance(fields, dict):
        value["config"] = {
            key: item for key, item in fields.items() if key not in idle or not (idle[key] is None or item in idle[key])
        }
    return value


def _without_slashes(config: Any) -> Any:
    """Layers renamed that have slashes in their names, and what refers to them."""
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
