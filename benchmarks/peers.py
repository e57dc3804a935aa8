"""Other quantizers on the same networks and samples, and their judgement of foreign files.

Every quantizer takes a float Keras model and samples [N, ...] and returns the bytes of a ``.tflite`` file with float
ends. Times include everything between the two, conversion of the graph too.
"""

import contextlib
import io

import keras
import numpy as np
import tensorflow as tf
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.utils.validation_utils import ValidationErrorMetric

from benchmarks.converter import float_file

SIGNATURE = "serving_default"


def ai_edge_w8a8(model: keras.Model, x: np.ndarray) -> bytes:
    """ai-edge-quantizer with its recipe ``static_wi8_ai8``."""
    original = float_file(model)
    return _ai_edge(quantizer.Quantizer(original, recipe.static_wi8_ai8()), original, x)


def ai_edge_w4a8(model: keras.Model, x: np.ndarray) -> bytes:
    """ai-edge-quantizer, 4-bit weights in the operators where it offers them, 8-bit weights elsewhere, min-max."""
    original = float_file(model)
    made = quantizer.Quantizer(original, recipe.static_wi8_ai8())
    for operator in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        made.add_static_config(regex=".*", operation_name=operator, activation_num_bits=8, weight_num_bits=4)
    return _ai_edge(made, original, x)


def _ai_edge(made: quantizer.Quantizer, original: bytes, x: np.ndarray) -> bytes:
    ranges = made.calibrate({SIGNATURE: _signature_inputs(original, x)}, num_threads=2)
    return bytes(made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _signature_inputs(content: bytes, x: np.ndarray) -> list[dict[str, np.ndarray]]:
    interpreter = tf.lite.Interpreter(model_content=content)
    (name,) = interpreter.get_signature_list()[SIGNATURE]["inputs"]
    return [{name: sample[None]} for sample in x]


def validate(float_content: bytes, content: bytes, x: np.ndarray) -> dict[str, float]:
    """ai-edge-quantizer's comparison of a file, tensor by tensor, with its float original.

    Returns:
        Name of each tensor that both files have -> signal to noise in dB.
    """
    judge = quantizer.Quantizer(float_content, previous_quantized_model=content)
    metric = ValidationErrorMetric.SNR  # a ratio of powers
    result = judge.validate({SIGNATURE: _signature_inputs(float_content, x)}, [metric], use_xnnpack=False)
    ratios = {name: value[metric.value] for name, value in result.get_all_tensor_results().items()}
    return {name: float(10 * np.log10(max(ratio, 1e-9))) for name, ratio in ratios.items()}


def analyze(content: bytes) -> str:
    """What ``tf.lite.experimental.Analyzer`` says of a file."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        tf.lite.experimental.Analyzer.analyze(model_content=content)
    return text.getvalue()
