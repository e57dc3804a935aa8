"""Weights at the edge: dead channels, tiny ones, biases far beyond their weights."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, run_decoded, signal_to_noise

import tfptq
from tfptq import PerBlock, QuantizationConfig, Rounding
from tfptq.pipeline import activations

PRESETS = ("w8a8_layer", "w8a8_channel", "w8a8_shift")
BLOCKS = {
    f"{scaler} {rounding}": plain_config(
        PerBlock(1, 1), scaler, 4, edge_bits=None, weight_scale="output", rounding=Rounding(rounding), layout="int8"
    )
    for scaler in ("integer", "shift")
    for rounding in ("nearest", "coordinate")
}
CONFIGS = [*PRESETS, *(pytest.param(config, id=name) for name, config in BLOCKS.items())]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)


def quantized_with(images, kernel_factor=1.0, bias=0.0, config="w8a8_shift"):
    """A convolution and a dense layer whose weights were changed; returns (result, float outputs, file's outputs)."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, [x, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x))])
    kernel = model.get_layer("conv").kernel
    model.get_layer("conv").set_weights([np.asarray(kernel) * kernel_factor, np.full(4, bias) * [1, -1, 1, 0]])
    result = tfptq.quantize_keras_model(model, images, config, progress=False)
    found = run_decoded(result.tflite, {"image": images})
    return result, np.asarray(model(images)[0]), found["output_0"]


def test_biases_behind_a_layer_that_is_always_zero_stay_exact():
    inputs = keras.Input((8,), name="x")
    dead = keras.layers.Dense(4, activation="relu", bias_initializer=keras.initializers.Constant(-90.0))(inputs)
    head = keras.layers.Dense(4, kernel_initializer="ones", name="head")
    model = keras.Model(inputs, head(dead))
    bias = np.array([0.31, -0.2, 0.05, 0.47], np.float32)
    head.bias.assign(bias)
    samples = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    with pytest.warns(tfptq.QuantizationWarning, match="same output for all samples in the float model"):
        result = tfptq.quantize_keras_model(model, samples, "w4a8_channel", progress=False)
    for resolver in RESOLVERS:
        (found,) = run_decoded(result.tflite, {"x": samples[:2]}, resolver).values()
        np.testing.assert_allclose(found, np.tile(bias, (2, 1)), atol=np.ptp(bias) / 255)


@pytest.mark.parametrize("config", CONFIGS)
def test_dead_channels(images, config):
    factor = np.array([1.0, 0.0, 1e-3, 1.0])
    _, expected, found = quantized_with(images, factor, bias=0.3, config=config)
    assert signal_to_noise(expected, found) > (30 if isinstance(config, str) else 15)
    assert np.abs(found[..., 1] + 0.3).max() < 0.01 * np.abs(expected).max()


def test_a_kernel_of_zeros_is_reported(images):
    result, expected, found = quantized_with(images, 0.0, bias=0.3)
    np.testing.assert_allclose(found, expected, atol=0.005)
    assert any("all weights of layer 'conv' are 0" in warning for warning in result.report.warnings)


@pytest.mark.parametrize("config", PRESETS)
def test_a_kernel_whose_codes_become_zeros_is_reported_otherwise(images, config):
    """Squeeze and excitation whose squeeze is next to nothing: what is left of the gate is its bias."""
    inputs = keras.Input((8, 8, 3), name="image")
    squeezed = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(inputs))
    gate = layers.Conv2D(3, 1, bias_initializer="ones", name="gate")(squeezed * 1e-10)
    model = keras.Model(inputs, layers.Conv2D(2, 3)(inputs * gate))
    result = tfptq.quantize_keras_model(model, images, config, progress=False)
    (found,) = run_decoded(result.tflite, {"image": images}).values()
    assert signal_to_noise(np.asarray(model(images)), found) > 25
    (warning,) = (line for line in result.report.warnings if "are 0" in line)
    assert "all codes of layer 'gate' are 0 although its weights are not" in warning and "skip=True" in warning


@pytest.mark.parametrize("config", CONFIGS)
def test_biases_far_beyond_the_weights_do_not_overflow(images, config):
    _, expected, found = quantized_with(images, np.array([1e-9, 1e-9, 1.0, 1.0]), bias=1000.0, config=config)
    assert signal_to_noise(expected, found) > 40


@pytest.mark.parametrize("preset", ["w8a8_channel", "w8a8_shift"])
def test_int64_biases_leave_room_for_small_weights(preset):
    """Many small weights that add up to a little beside the bias, which an int32 bias would round to 0.

    The second channel has a small bias too: with the smallest scale for it, its multiplier would be 0 on every runtime.
    """
    rng = np.random.default_rng(0)
    x = (rng.uniform(0, 1, (16, 2, 2, 1)) * rng.uniform(0.5, 1, (16, 2, 2, 2048))).astype(np.float32)
    inputs = keras.Input((2, 2, 2048), name="x")
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv")(inputs))
    kernel = rng.uniform(0.5, 1, (1, 1, 2048, 3)) * [4e-6, 1e-13, 4e-6]
    model.get_layer("conv").set_weights([kernel.astype(np.float32), np.float32([1, 1e-2, -2])])
    config = QuantizationConfig.from_preset(preset).replace(activation_bits=16)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    expected, step = np.asarray(model(x)), 2 / 32767
    assert np.ptp(expected[..., 0]) > 60 * step
    for name in RESOLVERS:
        found = run_decoded(result.tflite, {"x": x}, name)["output_0"]
        assert np.abs(found - expected).max() < 4 * step, name


def test_very_small_weights(images):
    _, expected, found = quantized_with(images, 1e-12)
    assert signal_to_noise(expected, found) > 25


@pytest.mark.parametrize("config", ["w4a8_channel", "w4a8_block", "w4a8_fine_block", "w4a8_mixed"])
@pytest.mark.parametrize("factor", [1e-22, 1e-30, 1e-38])
def test_activations_whose_squares_float32_cannot_hold(images, factor, config):
    """Below the smallest step of any grid, they are zeros in the file, and what their readers add to them remains."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="tiny")(inputs)
    x = layers.Conv2D(4, 3, name="reader", activation="relu")(x)
    x = layers.Conv2D(4, 3, name="gate", bias_initializer="ones")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x * layers.Conv2D(4, 5)(inputs)[:, 1:3, 1:3]))
    kernel = model.get_layer("tiny").kernel
    kernel.assign(factor * kernel)
    config = QuantizationConfig.from_preset(config).replace(target="any")
    result = tfptq.quantize_keras_model(model, images, config, progress=False)
    (found,) = run_decoded(result.tflite, {"image": images}).values()
    assert signal_to_noise(np.asarray(model(images)), found) > 15


def difference_network(noise):
    """The difference of two large inputs that are equal up to some noise, and samples of these."""
    rng = np.random.default_rng(0)
    base = rng.normal(300.0, 10.0, (64, 1))
    readings = np.concatenate([base, base + rng.normal(0.0, noise, (64, 1))], axis=1).astype(np.float32)
    inputs = keras.Input((2,), name="readings")
    x = layers.Dense(4, name="difference")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    model.get_layer("difference").set_weights([np.float32([[50.0] * 4, [-50.0] * 4]), np.zeros(4, np.float32)])
    return model, readings


@pytest.mark.parametrize("noise", [0.02, 0.001])
@pytest.mark.parametrize("config", [name for name in tfptq.PRESETS if tfptq.PRESETS[name].activations == "static"])
def test_results_far_below_what_their_kernels_add_up(config, noise):
    """Useless in 8 bits, but a file that every runtime loads; with little noise, after the result's range is wider."""
    model, readings = difference_network(noise)
    result = tfptq.quantize_keras_model(model, readings, config, progress=False)
    assert any("signal to noise" in warning for warning in result.report.warnings)
    found = [run_decoded(result.tflite, {"readings": readings}, name)["output_0"] for name in RESOLVERS]
    assert np.isfinite(found).all()
    tfptq.export_simulation(result.keras_model, readings, progress=False)


def test_layers_whose_results_would_widen_without_end_are_named(monkeypatch):
    monkeypatch.setattr(activations, "MOST_WIDENINGS", 1)
    model, readings = difference_network(0.001)
    with pytest.raises(ValueError, match="too large for 8-bit activations in 'difference': .* skip=True by"):
        tfptq.quantize_keras_model(model, readings, "w8a8_channel", progress=False)


def test_activations_beyond_float32_squares_are_named(images):
    with pytest.raises(ValueError, match="layer 'head': layer statistics are not finite.*so large that float32"):
        quantized_with(images, kernel_factor=1e25, config="w4a8_channel")


def test_huge_weights_beside_what_they_read():
    """A concatenation of a kernel's result with its pooled input: one grid would widen with each other's ranges."""
    inputs = keras.Input((8, 8, 1), name="image")
    conv = layers.Conv2D(1, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(4e4), name="huge")
    x = layers.Concatenate()([layers.MaxPooling2D(1)(inputs), conv(inputs)])
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="reader")(x))
    data = np.random.default_rng(0).normal(0.0, 1e-6, size=(16, 8, 8, 1)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, data, "w8a8_channel", progress=False)
    assert result.report.outputs["output_0"] > 30.0
