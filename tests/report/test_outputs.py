"""Columns of outputs that are too small for their grid, and those that only look so."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import run_decoded, signal_to_noise

import tfptq

SAMPLES = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
CONFIG = tfptq.QuantizationConfig.from_preset("w8a8_channel")


def hidden():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    return inputs, layers.Dense(32, "relu")(inputs)


def quantized(model, samples=SAMPLES, **fields):
    """(report, expected output, output of the file)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tfptq.QuantizationWarning)
        result = tfptq.quantize_keras_model(model, samples, CONFIG.replace(**fields), progress=False)
    found = next(iter(run_decoded(result.tflite, {"x": samples}).values()))
    return result.report, model.predict(samples, verbose=0), found


def columns(sizes):
    inputs, x = hidden()
    head = layers.Dense(len(sizes), name="head")
    model = keras.Model(inputs, head(x))
    kernel, bias = head.get_weights()
    head.set_weights([kernel * np.float32(sizes), bias])
    return model


def test_columns_that_drown_are_reported():
    report, expected, found = quantized(columns([300, 300, 1, 300, 0.5]))
    (warning,) = report.warnings
    assert "output 'output_0' has 2 columns" in warning and ": 2 (" in warning and ", 4 (" in warning
    assert signal_to_noise(expected[:, 2], found[:, 2]) < 6
    assert not quantized(columns([300, 300, 1, 300, 0.5]), activation_bits=16)[0].warnings


@pytest.mark.parametrize("sizes", [[1, 1, 1], [30, 10, 3], [1, 0, 1], [1]])
def test_ordinary_columns_and_dead_ones_are_not(sizes):
    report, _, _ = quantized(columns(sizes))
    assert not [line for line in report.warnings if "column" in line]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "relu", None])
def test_classifiers_with_rare_classes_are_not(activation):
    inputs, x = hidden()
    head = layers.Dense(10, activation)
    model = keras.Model(inputs, head(x))
    kernel = head.get_weights()[0]
    head.set_weights([kernel * 2, np.linspace(-8, 2, 10, dtype=np.float32)])
    report, _, _ = quantized(model)
    assert not [line for line in report.warnings if "column" in line]
