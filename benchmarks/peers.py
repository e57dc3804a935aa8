"""Other quantizers on the same networks and samples, and their judgement of foreign files.

Every quantizer takes a float Keras model and samples [N, ...] and returns the bytes of a ``.tflite`` file with float
ends. Times include everything between the two, conversion of the graph too.
"""

import contextlib
import io
import re

import keras
import numpy as np
import tensorflow as tf
from litert_quantizer import qtyping, quantizer, recipe
from litert_quantizer.algorithm_manager import AlgorithmName
from litert_quantizer.utils.validation_utils import ValidationErrorMetric

from benchmarks import measure
from benchmarks.converter import float_file
from tfptq.tflite.model import TFLiteModel

SIGNATURE = "serving_default"
#: Samples of the one call of calibration, in which all activations of all samples are kept.
_MOST_AT_ONCE = 256
_Operator = qtyping.TFLOperationName


def litert_w8a8(model: keras.Model, x: np.ndarray) -> bytes:
    """litert-quantizer with 8-bit weights, by the better of its algorithms."""
    return _best(model, x, 8)


def litert_w4a8(model: keras.Model, x: np.ndarray) -> bytes:
    """litert-quantizer with 4-bit weights where it offers them, 8 bits in the first and the last kernel."""
    return _best(model, x, 4)


def _best(model: keras.Model, x: np.ndarray, bits: int) -> bytes:
    """The file of the algorithm with the least error on the calibration samples.

    All of them are calibrated on in one call: over several calls it averages the ranges, and clips.
    """
    original = float_file(model)
    samples, name = x[:_MOST_AT_ONCE], _input_name(original)
    expected, best, least = measure.run(original, samples[:64], threads=2), b"", np.inf
    made = quantizer.Quantizer(original, recipe.static_wi8_ai8())
    ranges = made.calibrate({SIGNATURE: [{name: samples}]}, num_threads=2)
    for algorithm in (AlgorithmName.MIN_MAX_UNIFORM_QUANT, AlgorithmName.MSE, AlgorithmName.OCTAV):
        made = quantizer.Quantizer(original, recipe.static_wi8_ai8())
        for operator in (_Operator.CONV_2D, _Operator.FULLY_CONNECTED):
            _add(made, ".*", operator, bits, algorithm)
        for output in _ends(original):
            for operator in (_Operator.CONV_2D, _Operator.FULLY_CONNECTED):
                _add(made, re.escape(output), operator, 8, AlgorithmName.MIN_MAX_UNIFORM_QUANT)
        quantized = made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
        error = float(np.square(measure.run(bytes(quantized), samples[:64], threads=2) - expected).sum())
        if error < least:
            best, least = bytes(quantized), error
    return best


def _add(
    made: quantizer.Quantizer, pattern: str, operator: qtyping.TFLOperationName, bits: int, algorithm: str
) -> None:
    made.add_static_config(
        regex=pattern, operation_name=operator, activation_num_bits=8, weight_num_bits=bits, algorithm_key=algorithm
    )


def _ends(original: bytes) -> list[str]:
    """Names of what the first and the last operator with a kernel give."""
    file = TFLiteModel(original)
    outputs = [file.name(op.outputs[0]) for op in file.operators if file.spec(op).kernel is not None]
    return [outputs[0], outputs[-1]]


def _input_name(content: bytes) -> str:
    interpreter = tf.lite.Interpreter(model_content=content)
    (name,) = interpreter.get_signature_list()[SIGNATURE]["inputs"]
    return name


def signature_inputs(content: bytes, x: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Samples one by one, by the name of the input."""
    name = _input_name(content)
    return [{name: sample[None]} for sample in x]


def validate(float_content: bytes, content: bytes, x: np.ndarray) -> dict[str, float]:
    """litert-quantizer's comparison of a file, tensor by tensor, with its float original.

    Returns:
        Name of each tensor that both files have -> signal to noise in dB.
    """
    judge = quantizer.Quantizer(float_content, previous_quantized_model=content)
    metric = ValidationErrorMetric.SNR  # a ratio of powers
    result = judge.validate({SIGNATURE: signature_inputs(float_content, x)}, [metric], use_xnnpack=False)
    ratios = {name: value[metric.value] for name, value in result.get_all_tensor_results().items()}
    return {name: float(10 * np.log10(max(ratio, 1e-9))) for name, ratio in ratios.items()}


def analyze(content: bytes) -> str:
    """What ``tf.lite.experimental.Analyzer`` says of a file."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        tf.lite.experimental.Analyzer.analyze(model_content=content)
    return text.getvalue()
