"""Light operators around float ones: what must stay in float with them, and what must not."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from stock_runtimes import run, signal_to_noise

import tfptq
from tfptq.config import override

RNG = np.random.default_rng(0)
SAMPLES = RNG.normal(size=(200, 16)).astype(np.float32)
PRICES = np.exp(RNG.normal(3, 2, (300, 4))).astype(np.float32)
CONFIGS = {
    8: tfptq.QuantizationConfig.from_preset("w8a8_channel"),
    16: tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(activation_bits=16),
}


def head(build, samples=SAMPLES):
    """A dense layer, and what ``build`` makes of it."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(samples.shape[1:], name="x")
    return keras.Model(inputs, build(layers.Dense(32, "relu")(inputs)))


def front(build):
    """What ``build`` makes of prices, and two dense layers."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(16, "relu")(build(inputs))))


def quantized(model, samples, config=None):
    """(signal to noise in dB, names of the float operators, names of the operators with kernels on floats)."""
    result = tfptq.quantize_keras_model(model, samples, config or CONFIGS[8], progress=False)
    found = next(iter(run(result.tflite, {"x": samples}).values()))
    assert np.isfinite(found).all()
    ratio = signal_to_noise(model.predict(samples, verbose=0), found)
    return ratio, [operator.operator for operator in result.report.float_operators]


HEADS = {
    "log of a sum": (lambda h: ops.log(layers.Dense(8, "relu")(h) + 1e-6), ["ADD", "LOG"], 15, 26),
    "log of a maximum": (lambda h: ops.log(ops.maximum(layers.Dense(8)(h), 1e-3)), ["MAXIMUM", "LOG"], 20, 35),
    "log of probabilities": (
        lambda h: ops.log(ops.softmax(layers.Dense(10)(h) * 4) + 1e-7),
        ["SOFTMAX", "ADD", "LOG"],
        35,
        46,
    ),
    "log of the other probability": (
        lambda h: ops.log(1.0 - ops.sigmoid(layers.Dense(4)(h) * 3)),
        ["LOGISTIC", "SUB", "LOG"],
        35,
        44,
    ),
    "power of a sum": (lambda h: ops.power(layers.Dense(8, "relu")(h) + 1e-3, -0.5), ["ADD", "RSQRT"], 10, 30),
    "root of a sum": (lambda h: ops.sqrt(layers.Dense(8, "relu")(h) + 1e-6), ["ADD", "SQRT"], 25, 39),
    "quotient": (lambda h: 1.0 / (layers.Dense(8, "relu")(h) + 1e-2), ["ADD", "DIV"], 10, 30),
    "quotient by a sum over an axis": (
        lambda h: h / (ops.sum(h, axis=-1, keepdims=True) + 1e-6),
        ["MEAN", "MUL", "ADD", "DIV"],
        35,
        45,
    ),
    "moved on the way": (
        lambda h: ops.log(layers.Reshape((8, 2))(layers.Dense(16, "relu")(h) + 1e-4)),
        ["ADD", "RESHAPE", "LOG"],
        15,
        29,
    ),
    "chosen on the way": (
        lambda h: ops.log(ops.where(h > 0.5, layers.Dense(32, "relu")(h) + 1e-4, 1.0)),
        ["GREATER", "ADD", "SELECT_V2", "LOG"],
        10,
        22,
    ),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", HEADS)
def test_what_must_be_exact_near_0_stays_float(name, bits):
    build, floats, *least = HEADS[name]
    ratio, found = quantized(head(build), SAMPLES, CONFIGS[bits])
    assert found == floats
    assert ratio > least[bits == 16]


def test_readers_on_integers_do_not_bring_the_constant_back():
    def build(h):
        shifted = layers.Dense(8, "relu")(h) + 1e-3
        return layers.Dense(4)(layers.Concatenate()([ops.log(shifted), layers.Dense(3)(shifted)]))

    ratio, floats = quantized(head(build), SAMPLES)
    assert floats == ["ADD", "LOG"]
    assert ratio > 25


def test_a_shortcut_that_others_read_keeps_its_integers():
    def build(h):
        total = layers.Dense(32, "relu")(h) + h
        return layers.Dense(4)(layers.Concatenate()([ops.sqrt(total), layers.Dense(3)(total)]))

    assert quantized(head(build), SAMPLES)[1] == ["SQRT"]


def test_normalizations_keep_the_integers_around_their_variance():
    def build(h):
        normalized = layers.LayerNormalization()(layers.Dense(32)(h) + h)
        return layers.Dense(4)(normalized)

    floats = quantized(head(build), SAMPLES)[1]
    assert floats == ["NEG", "SQUARED_DIFFERENCE", "MEAN", "ADD", "RSQRT", "MUL", "MUL"]
    floats = quantized(head(lambda h: layers.RMSNormalization()(layers.Dense(32)(h) + h)), SAMPLES)[1]
    assert floats == ["MUL", "MEAN", "ADD", "RSQRT"]


FRONTS = {
    "log of a sum": (lambda x: ops.log(x + 1.0), ["ADD", "LOG"]),
    "log": (ops.log, ["LOG"]),
    "log of a clip": (lambda x: ops.log(ops.clip(x, 1e-3, 1e6)), ["MINIMUM", "MAXIMUM", "LOG"]),
    "sine": (lambda x: ops.sin(x / 10.0), ["MUL", "SIN"]),
    "several in a row": (
        lambda x: ops.sin(layers.Reshape((4,))(ops.tanh(x / 50.0) * 3.0 + 1.0)),
        ["MUL", "TANH", "MUL", "ADD", "SIN"],
    ),
    "beside the input": (lambda x: ops.log(x + 1.0) * (x + 1.0) ** -0.5, None),
    "behind it, with the input": (lambda x: ops.sin(ops.log(x + 1.0) + x / 10.0), ["ADD", "LOG", "MUL", "ADD", "SIN"]),
}


@pytest.mark.parametrize("name", FRONTS)
def test_between_a_float_input_and_a_float_operator(name):
    build, floats = FRONTS[name]
    ratio, found = quantized(front(build), PRICES)
    assert ratio > 34
    assert floats in (None, found)


def test_a_spectrogram_is_float_up_to_the_kernel():
    keras.utils.set_random_seed(0)
    sounds = np.random.default_rng(0).normal(size=(40, 2000)).astype(np.float32)
    inputs = keras.Input((2000,), name="x")
    front = layers.MelSpectrogram(
        num_mel_bins=12, sampling_rate=8000, sequence_stride=200, sequence_length=400, fft_length=512
    )
    spectrogram = ops.transpose(front(inputs), (0, 2, 1))
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Conv1D(8, 3)(spectrogram))))
    ratio, floats = quantized(model, sounds)
    assert ratio > 38
    assert {"SQRT", "MAXIMUM", "LOG"} <= set(floats)


def bands(x):
    """Logarithms of sums of powers, as a mel spectrogram has them."""
    filters = layers.Dense(
        6, use_bias=False, kernel_initializer=keras.initializers.RandomUniform(0, 1, seed=1), name="f"
    )
    return ops.log(filters(ops.exp(layers.Dense(12, name="first")(x))) + 1e-6)


def quantized_bands(config):
    keras.utils.set_random_seed(0)
    samples = np.random.default_rng(0).normal(0, 2, (200, 12)).astype(np.float32)
    inputs = keras.Input((12,), name="x")
    model = keras.Model(inputs, bands(inputs))
    result = tfptq.quantize_keras_model(model, samples, config, progress=False)
    found = next(iter(run(result.tflite, {"x": samples}).values()))
    return result, signal_to_noise(model.predict(samples, verbose=0), found)


def test_a_kernel_between_float_values_and_a_logarithm():
    result, ratio = quantized_bands("w8a8_channel")
    assert ratio > 35  # 17 dB with int8 results of the filters
    reasons = {item.operator: item.reason for item in result.report.float_operators}
    assert reasons["FULLY_CONNECTED"] == "FULLY_CONNECTED gives LOG values that must be exact near 0"
    assert [(layer.name, layer.layout) for layer in result.report.layers] == [("first", "int8"), ("f", "weights_only")]


def test_an_override_has_the_last_word():
    result, ratio = quantized_bands(CONFIGS[8].replace(overrides=[override("f", activations="static")]))
    assert ratio < 30 and [layer.layout for layer in result.report.layers] == ["int8", "int8"]
