"""Rotation of whole models, alone and through the whole pipeline."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import run_decoded, signal_to_noise

import tfptq
from tfptq.config import QuantizationConfig, override
from tfptq.graph import canonicalise, check_float_equal
from tfptq.prepare.rotate import rotate_linear_channels

W4 = QuantizationConfig.from_preset("w4a8_channel").replace(edge_bits=None)


def bottlenecks(seed=1):
    """Two inverted residuals; weights with heavy tails, as after training with weight decay."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((12, 12, 3), name="image")
    for name, strides in (("first", 2), ("second", 1), ("third", 1)):
        y = layers.Conv2D(32, 1, strides=strides, activation="relu6", name=f"{name}_expand")(x)
        y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name=f"{name}_depthwise")(y)
        y = layers.Conv2D(16, 1, name=f"{name}_project")(y)
        x = y if name == "first" else layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1, activation="relu", name="head")(x))
    model = keras.Model(inputs, layers.Dense(5, name="logits")(x))
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.name.endswith(("expand", "project", "head")):
            kernel, bias = layer.get_weights()
            heavy = random.standard_t(3, size=kernel.shape) / np.sqrt(3.0 * kernel.shape[2])
            layer.set_weights([heavy, 0.1 * random.normal(size=bias.shape)])
    return model


def samples(count=96, seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, 1, 1, 3)) + random.normal(size=(count, 12, 12, 3))).astype(np.float32)


def changed(config):
    model = canonicalise(bottlenecks())
    rotated = rotate_linear_channels(model, config)
    check_float_equal(model, rotated, {"image": samples(8)}, 1e-5)
    before, after = ({layer.name: layer.get_weights() for layer in each.layers} for each in (model, rotated))
    return {name for name in before if before[name] and not np.array_equal(before[name][0], after[name][0])}


ALL = {"first_project", "second_expand", "second_project", "third_expand", "third_project", "head"}


def test_both_ends_of_linear_channels_are_rotated():
    assert changed(W4) == ALL
    assert changed(W4.replace(weight_bits=8, overrides=(override("head", weight_bits=4),))) == ALL


def test_layers_that_cannot_gain_leave_their_channels_alone():
    model = canonicalise(bottlenecks())
    narrow_elsewhere = override("*depthwise", weight_bits=4)
    for config in (W4.replace(weight_bits=8), W4.replace(weight_bits=8, overrides=(narrow_elsewhere,))):
        assert rotate_linear_channels(model, config) is model
    skipped = W4.replace(overrides=(override("*", skip=True), override("logits", skip=False)))
    assert rotate_linear_channels(model, skipped) is model


@pytest.mark.parametrize("preset", ["w4a8_channel", "w4a8_fine_block"])
def test_files_of_few_bits_gain(preset):
    gains = []
    for seed in (1, 2, 3, 4):
        model, data, more = bottlenecks(seed), samples(), samples(seed=1)
        expected, found = model.predict(more, verbose=0), []
        centre = expected.mean(axis=0)
        for rotate in (False, True):
            config = QuantizationConfig.from_preset(preset)
            config = config.replace(rotate=rotate, rounding="coordinate", edge_bits=None, target="any")
            result = tfptq.quantize_keras_model(model, data, config, progress=False)
            assert ("rotate" in result.report.float_differences) == rotate
            (outputs,) = run_decoded(result.tflite, {"image": more}).values()
            found.append(signal_to_noise(expected - centre, outputs - centre))
        gains.append(found[1] - found[0])
    assert np.mean(gains) > 0.5


def test_presets_of_few_bits_rotate():
    static = {name: config for name, config in tfptq.PRESETS.items() if config.activations == "static"}
    narrow = {name for name, config in static.items() if config.weight_bits < 8}
    assert {name for name, config in tfptq.PRESETS.items() if config.rotate} == narrow
