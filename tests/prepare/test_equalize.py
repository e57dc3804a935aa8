"""Equalization of whole models, alone and through the whole pipeline."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from residual_models import inverted_residual, residual, with_random_weights
from stock_runtimes import run_decoded, signal_to_noise

import tfptq
from tfptq.config import PerChannel, PerTensor, QuantizationConfig, override
from tfptq.graph import canonicalise, check_float_equal
from tfptq.prepare.equalize import equalize_channels

W4 = plain_config(PerChannel(), weight_bits=4, equalize=True, edge_bits=None)


def samples(count=32, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 3)).astype(np.float32)


def equalized(network, config=W4):
    model = canonicalise(with_random_weights(network()))
    data = {"image": samples()}
    found = equalize_channels(model, config, tfptq.calibration_data(model, data))
    check_float_equal(model, found, data, 1e-5)
    return model, found


def kernels(model):
    return {layer.name: layer.get_weights()[0] for layer in model.layers if layer.get_weights()}


def changed(network, config):
    before, after = (kernels(model) for model in equalized(network, config))
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_both_ends_of_a_group_are_scaled():
    assert changed(residual, W4) == {"stem", "inner", "branch", "logits"}
    # Nothing reads the outputs of ``expand`` but a depthwise layer, which gains nothing.
    assert changed(inverted_residual, W4) == {"stem", "expand", "depthwise", "project", "logits"}


def test_layers_that_cannot_gain_leave_their_channels_alone():
    for bits in (4, 8):
        model, found = equalized(residual, W4.replace(granularity=PerTensor(), weight_bits=bits))
        assert found is model
    only_inner = W4.replace(overrides=(override("*", skip=True), override("inner", skip=False)))
    assert changed(residual, only_inner) == {"stem", "inner", "branch", "logits"}
    only_branch = W4.replace(overrides=(override("*", skip=True), override("branch", skip=False)))
    assert changed(residual, only_branch) == {"inner", "branch"}


def test_a_channel_that_relu6_cuts_off_keeps_its_scale():
    model = with_random_weights(inverted_residual())
    model.get_layer("depthwise").bias.assign(np.arange(18, dtype=np.float32))  # the later ones are always above 6
    model = canonicalise(model)
    found = equalize_channels(model, W4, tfptq.calibration_data(model, samples()))
    ratio = kernels(found)["depthwise"] / kernels(model)["depthwise"] * 1.0
    inputs = kernels(found)["expand"] / kernels(model)["expand"]
    factors = ratio[0, 0, :, 0]
    assert np.allclose(inputs, inputs[..., :1]) and np.allclose(ratio, factors[:, None])
    np.testing.assert_array_equal(factors[14:], 1.0)
    assert np.any(np.abs(factors[:6] - 1.0) > 0.05)


@pytest.mark.parametrize("network", [residual, inverted_residual])
def test_the_pipeline_gains_and_the_simulation_follows(network):
    def error(model, data, config):
        result = tfptq.quantize_keras_model(model, data, config, progress=False)
        tfptq.verify(result.tflite)
        if config.equalize:
            assert 0.0 <= result.report.float_differences["equalize"] < 1e-4
        outputs, expected = (each.predict(data, verbose=0) for each in (result.keras_model, model))
        return np.mean((outputs - expected) ** 2)

    gains = []
    for seed in (1, 2, 3):
        model, data = with_random_weights(network(), seed), samples(48, seed)
        gains.append(np.log(error(model, data, W4.replace(equalize=False)) / error(model, data, W4)))
    assert np.mean(gains) > np.log(1.25)


def test_all_presets_but_the_plain_one_equalize():
    static = {name: config for name, config in tfptq.PRESETS.items() if config.activations == "static"}
    assert {name for name, config in static.items() if not config.equalize} == {"w8a8_layer"}


def test_a_model_without_groups_stays():
    inputs = keras.Input((4,), name="x")
    model = canonicalise(keras.Model(inputs, layers.Dense(3)(inputs)))
    assert equalize_channels(model, W4, tfptq.calibration_data(model, np.zeros((2, 4), np.float32))) is model


def uneven_network(spread):
    """Channels between two convolutions whose sizes go from 1 to ``spread``."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    first, second = (layers.Conv2D(8, 3, activation="relu", name=name) for name in ("first", "second"))
    model = keras.Model(inputs, layers.Dense(4, name="scores")(layers.Flatten()(second(first(inputs)))))
    sizes = np.geomspace(1.0, spread, 8).astype(np.float32)
    first.set_weights([first.kernel.numpy() * sizes, first.bias.numpy()])
    second.set_weights([second.kernel.numpy() / sizes[:, None], second.bias.numpy()])
    return model


@pytest.mark.parametrize("preset", ["w8a8_channel", "w8a8_shift"])
@pytest.mark.parametrize(("spread", "gain_db"), [(1.0, -1.0), (30.0, 10.0)])
def test_8_bit_files_of_uneven_networks_gain(preset, spread, gain_db):
    model, data = uneven_network(spread), samples(64)
    expected, found = model.predict(data, verbose=0), []
    for equalize in (False, True):
        config = QuantizationConfig.from_preset(preset).replace(equalize=equalize)
        result = tfptq.quantize_keras_model(model, data, config, progress=False)
        (outputs,) = run_decoded(result.tflite, {"image": data}).values()
        found.append(signal_to_noise(expected, outputs))
    assert found[1] - found[0] > gain_db and found[1] > 30.0


def dense_block(norm):
    """Small values concatenated with large ones, in front of a BatchNormalization that levels them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    small = layers.MaxPooling2D(2, 1, "same")(layers.Conv2D(6, 3, padding="same", name="small")(inputs))
    x = layers.Concatenate(name="both")([small, layers.Conv2D(6, 3, padding="same", name="large")(inputs)])
    if norm:
        x = layers.BatchNormalization(epsilon=1e-9, name="norm")(x)
    x = layers.Conv2D(4, 3, padding="same", name="last")(layers.ReLU()(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    kernel, bias = model.get_layer("small").get_weights()
    model.get_layer("small").set_weights([kernel * 0.01, bias])
    data = samples(64)
    both = keras.Model(inputs, model.get_layer("both").output).predict(data, verbose=0)
    mean, variance = both.mean(axis=(0, 1, 2)), both.var(axis=(0, 1, 2))
    if norm:
        model.get_layer("norm").set_weights([np.ones(12), np.zeros(12), mean, variance])
    else:
        kernel, bias = model.get_layer("last").get_weights()
        model.get_layer("last").set_weights([kernel / np.sqrt(variance)[:, None], bias])
    return model, data


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("preset", "least_db"), [("w8a8_shift", 25.0), ("w4a8_channel", 15.0)])
def test_small_values_beside_large_ones_in_a_concatenation(norm, preset, least_db):
    model, data = dense_block(norm)
    expected, found = model.predict(data, verbose=0), []
    for equalize in (False, True):
        config = QuantizationConfig.from_preset(preset)
        config = config.replace(equalize=equalize, rounding="nearest", target="any")
        result = tfptq.quantize_keras_model(model, data, config, progress=False)
        (outputs,) = run_decoded(result.tflite, {"image": data}).values()
        centre = expected.mean(axis=0)
        found.append(signal_to_noise(expected - centre, outputs - centre))
    assert found[1] > least_db and found[1] > found[0] + 5.0
