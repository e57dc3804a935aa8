"""The ways of quantizing that the benchmarks compare, by name.

A method takes a float Keras model and samples [N, ...] and returns the ``.tflite`` file and notes, a dictionary that
goes into the results as it is.
"""

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks import converter, peers
from tfptq import QuantizationConfig, quantize_keras_model

#: What the results keep of a report.
_KEPT = ("float_operators", "skipped", "findings", "notes", "float_differences", "seconds")

Method = Callable[[keras.Model, np.ndarray], tuple[bytes, dict[str, Any]]]


def ours(config: QuantizationConfig | str) -> Method:
    """Method that quantizes with this package."""

    def quantize(model: keras.Model, x: np.ndarray) -> tuple[bytes, dict[str, Any]]:
        result = quantize_keras_model(model, x, config=config, seed=0, progress=False)
        report = json.loads(result.report.to_json())
        return result.tflite, {"report": {name: report[name] for name in _KEPT}}

    return quantize


def peer(quantize: Callable[[keras.Model, np.ndarray], bytes]) -> Method:
    """Method that quantizes with another tool."""
    return lambda model, x: (quantize(model, x), {})


METHODS: dict[str, Method] = {
    "float": peer(converter.float_file),
    "converter": peer(converter.converter_int8),
    "litert_w8a8": peer(peers.litert_w8a8),
    "litert_w4a8": peer(peers.litert_w4a8),
    "w8a8_layer": ours("w8a8_layer"),
    "w8a8_shift": ours("w8a8_shift"),
    "w8a8_channel": ours("w8a8_channel"),
}
