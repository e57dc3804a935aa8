"""Attention with a mask that is added to the scores, from ``quantize_keras_model`` to the stock runtime."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from stock_runtimes import RESOLVERS, run, signal_to_noise

import tfptq

TIME, WIDTH, SAMPLES = 8, 8, 64
CAUSAL = np.tril(np.ones((TIME, TIME), np.float32))
RNG = np.random.default_rng(0)
VALID = np.arange(TIME) < RNG.integers(3, TIME + 1, SAMPLES)[:, None]
DATA = {"x": RNG.normal(size=(SAMPLES, TIME, WIDTH)).astype(np.float32), "valid": VALID}
MASKS = ("constant", "float32", "int32")


def attention(mask, size):
    """One block of attention; ``mask`` is ``"constant"`` or the type of an input with a mask."""
    keras.utils.set_random_seed(0)
    x = keras.Input((TIME, WIDTH), name="x")
    query, key, value = (layers.Dense(WIDTH, name=name)(x) for name in ("query", "key", "value"))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) * np.float32(WIDTH**-0.5)
    inputs = [x]
    if mask == "constant":
        scores = scores + (1.0 - CAUSAL) * np.float32(size)
    else:
        inputs.append(keras.Input((TIME,), dtype=mask, name="valid"))
        valid = ops.cast(inputs[1], "float32")
        scores = scores + (1.0 - ops.reshape(valid, (-1, 1, TIME))) * np.float32(size)
    y = x + layers.Dense(WIDTH, name="out")(ops.matmul(ops.softmax(scores), value))
    return keras.Model(inputs, layers.Dense(4, name="head")(y))


@pytest.mark.parametrize("mask", MASKS)
def test_masks_of_any_size_leave_the_scores_their_codes(mask):
    data = {"x": DATA["x"]} if mask == "constant" else {**DATA, "valid": VALID.astype(mask)}
    for size in (-20.0, -1e9, np.finfo(np.float32).min):
        model = attention(mask, size)
        expected = model.predict(data, verbose=0)
        result = tfptq.quantize_keras_model(model, data, progress=False)
        simulated = result.keras_model.predict(data, verbose=0)
        assert signal_to_noise(expected, simulated) > 25
        for resolver in RESOLVERS:
            (found,) = run(result.tflite, data, resolver).values()
            assert signal_to_noise(expected, found) > 25, (size, resolver)
            assert signal_to_noise(simulated, found) > 25, (size, resolver)
        if mask != "int32":  # CAST has no integer kernel
            assert not result.report.float_operators


def test_few_bits_in_the_simulation():
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(activation_bits=6)
    ratios = []
    for size in (-20.0, -1e9):
        model = attention("constant", size)
        result = tfptq.quantize_keras_model(model, DATA["x"], config, progress=False)
        simulated = result.keras_model.predict(DATA["x"], verbose=0)
        ratios.append(signal_to_noise(model.predict(DATA["x"], verbose=0), simulated))
    assert ratios[1] > ratios[0] - 1.0
