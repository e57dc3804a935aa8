"""Operators that choose between values, and those that ask about them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfptq

RNG = np.random.default_rng(0)
CONFIG = tfptq.QuantizationConfig.from_preset("w8a8_channel")


def quantize(model, samples):
    result = tfptq.quantize_keras_model(model, samples, CONFIG, progress=False)
    return min(result.report.outputs.values()), [item.operator for item in result.report.float_operators]


@pytest.mark.parametrize("nothing", [-1e9, -30.0])
def test_masks_that_are_chosen_before_a_softmax(nothing):
    keras.utils.set_random_seed(0)
    inputs, mask = keras.Input((8, 16), name="x"), keras.Input((8,), name="mask")
    scores = ops.matmul(layers.Dense(16)(inputs), ops.transpose(layers.Dense(16)(inputs), (0, 2, 1))) / 4
    seen = ops.where(ops.expand_dims(mask, 1) > 0.5, scores, nothing)
    model = keras.Model([inputs, mask], ops.matmul(ops.softmax(seen), layers.Dense(16)(inputs)))
    samples = [RNG.normal(size=(64, 8, 16)).astype(np.float32), (RNG.random((64, 8)) > 0.3).astype(np.float32)]
    samples[1][:, 0] = 1.0
    decibels, in_float = quantize(model, samples)
    assert decibels > 25 and not {"SELECT_V2", "SOFTMAX"}.intersection(in_float)


def test_choices_between_values_too_far_apart_stay_in_float():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4), name="x")
    hidden = layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, ops.where(hidden > 0, hidden, -1e6))
    _, in_float = quantize(model, RNG.normal(size=(64, 8, 8, 4)).astype(np.float32))
    assert "SELECT_V2" in in_float


def test_what_is_not_chosen_takes_no_codes():
    """The exponential of values above 0 is never taken, and would leave few codes to the others."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4), name="x")
    hidden = layers.Conv2D(4, 3, name="conv", kernel_initializer="he_normal")(2.0 * inputs)
    model = keras.Model(inputs, ops.where(hidden > 0, hidden, ops.exp(hidden) - 1.0))
    decibels, _ = quantize(model, RNG.normal(size=(64, 8, 8, 4)).astype(np.float32))
    assert decibels > 30


@pytest.mark.parametrize("threshold", [0.0, 400.0, 1e6])
def test_comparisons_of_large_values_run(threshold):
    """LiteRT's integer kernels abort where a step is 1 or more."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,), name="x")
    hidden = 1000.0 * layers.Dense(8, name="dense")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(ops.where(hidden > threshold, 0.5 * hidden, hidden)))
    decibels, _ = quantize(model, RNG.normal(size=(64, 16)).astype(np.float32))
    assert decibels > 25
