"""Parts of one output that are far smaller than others: joined in float, or reported."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from stock_runtimes import run_decoded, signal_to_noise

import tfptq

SAMPLES = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
CONFIG = tfptq.QuantizationConfig.from_preset("w8a8_channel")


def hidden():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    return inputs, layers.Dense(32, "relu")(inputs)


def detector(join):
    """Boxes of hundreds of pixels and scores below 1, joined."""
    inputs, x = hidden()
    boxes = layers.Rescaling(300.0, name="pixels")(layers.Dense(4, name="boxes")(x))
    scores = layers.Dense(4, "sigmoid", name="scores")(x)
    return keras.Model(inputs, join(boxes, scores))


def stacked(boxes, scores):
    return layers.Reshape((2, 4))(layers.Concatenate()([boxes, scores]))


def nested(boxes, scores):
    inner = layers.Concatenate(axis=1)([layers.Reshape((1, 4))(scores), layers.Reshape((1, 4))(boxes)])
    return layers.Concatenate(axis=1)([layers.Permute((1, 2))(inner), layers.Reshape((1, 4))(boxes * 2.0)])


JOINS = {
    "concatenation": (lambda boxes, scores: layers.Concatenate()([boxes, scores]), (slice(None), slice(4, None))),
    "stack": (lambda boxes, scores: ops.stack([boxes, scores], axis=1), (slice(None), 1)),
    "reshaped": (stacked, (slice(None), 1)),
    "transposed": (
        lambda boxes, scores: layers.Permute((2, 1))(stacked(boxes, scores)),
        (slice(None), slice(None), 1),
    ),
    "activated": (
        lambda boxes, scores: layers.ReLU()(layers.Concatenate()([boxes, scores])),
        (slice(None), slice(4, None)),
    ),
    "nested": (nested, (slice(None), 0)),
    "read in float": (
        lambda boxes, scores: ops.sin(layers.Concatenate()([boxes / 100.0, scores / 10.0])),
        (slice(None), slice(4, None)),
    ),
}


def quantized(model, samples=SAMPLES, **fields):
    """(report, expected output, output of the file)."""
    result = tfptq.quantize_keras_model(model, samples, CONFIG.replace(**fields), progress=False)
    found = next(iter(run_decoded(result.tflite, {"x": samples}).values()))
    return result.report, model.predict(samples, verbose=0), found


@pytest.mark.parametrize("name", JOINS)
def test_parts_of_float_outputs_keep_their_grids(name):
    join, scores = JOINS[name]
    report, expected, found = quantized(detector(join))
    assert signal_to_noise(expected, found) > 30
    assert signal_to_noise(expected[scores], found[scores]) > 34
    assert not report.findings and not report.notes


@pytest.mark.parametrize("name", [name for name in JOINS if name != "read in float"])
def test_parts_that_drown_in_integer_outputs_are_named(name):
    report, _, _ = quantized(detector(JOINS[name][0]), output_type="int8")
    (warning,) = [line for line in report.warnings if "joins" in line]
    assert "'scores'" in warning and "'boxes'" not in warning and "separate outputs" in warning
    assert not report.float_operators


def test_parts_of_one_size_and_of_zeros_stay_on_integers():
    inputs, x = hidden()
    parts = [layers.Dense(4)(x), layers.Dense(3)(x) * 0.0, layers.Dense(4)(x) * 2.0]
    report, _, _ = quantized(keras.Model(inputs, layers.Concatenate()(parts)))
    assert not report.float_operators and not [line for line in report.warnings if "joins" in line]


def test_joins_that_kernels_read_stay_on_integers():
    inputs, x = hidden()
    joined = layers.Concatenate()([layers.Dense(4)(x) * 300.0, layers.Dense(4, "sigmoid")(x)])
    report, _, _ = quantized(keras.Model(inputs, layers.Dense(3)(joined)))
    assert not report.float_operators
