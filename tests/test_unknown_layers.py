"""Kernels in layers that tfptq does not know: quantized where the converter makes ordinary operators of them."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, run_decoded, signal_to_noise

import tfptq

RNG = np.random.default_rng(0)


@keras.saving.register_keras_serializable("test_unknown_layers")
class ConvThenDense(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(8, 3, activation="relu")
        self.dense = layers.Dense(4)

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.dense.build((None, 8))

    def call(self, inputs):
        return self.dense(keras.ops.mean(self.conv(inputs), axis=(1, 2)))


def with_a_custom_layer():
    inputs = keras.Input((12, 12, 3), name="x")
    return keras.Model(inputs, ConvThenDense(name="own")(inputs))


def with_a_convolution_for_each_step():
    inputs = keras.Input((3, 12, 12, 3), name="x")
    x = layers.TimeDistributed(layers.Conv2D(8, 3, activation="relu"))(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling3D()(x))


def with_a_model_for_each_step():
    each = [keras.Input((12, 12, 3)), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(), layers.Dense(4)]
    inputs = keras.Input((3, 12, 12, 3), name="x")
    return keras.Model(inputs, layers.TimeDistributed(keras.Sequential(each))(inputs))


@pytest.mark.parametrize(
    ("build", "kernels"),
    [(with_a_custom_layer, 2), (with_a_convolution_for_each_step, 1), (with_a_model_for_each_step, 2)],
)
def test_no_layer_that_tfptq_knows(build, kernels):
    model = build()
    data = RNG.normal(size=(32, *model.input_shape[1:])).astype(np.float32)
    expected, result = model.predict(data, verbose=0), tfptq.quantize_keras_model(model, data, progress=False)
    for resolver in RESOLVERS:
        (found,) = run_decoded(result.tflite, {"x": data}, resolver).values()
        assert signal_to_noise(expected, found) > 30.0
    assert [layer.layout for layer in result.report.layers] == ["int8"] * kernels
    assert not result.report.skipped and not result.report.float_operators
    np.testing.assert_allclose(result.keras_model.predict(data, verbose=0), expected, atol=1e-5)
    assert sum("keras_model computes in float" in line for line in result.report.notes) == 1


def bits_of(model, config, count=32):
    data = RNG.normal(size=(count, *model.input_shape[1:])).astype(np.float32)
    result = tfptq.quantize_keras_model(model, data, config, progress=False)
    return result, {layer.name: layer.bits for layer in result.report.layers}


@pytest.mark.parametrize("preset", ["w4a8_channel", "w4a8_block", "w4a8_mixed"])
def test_presets_reach_kernels_of_custom_layers(preset):
    _, found = bits_of(with_a_custom_layer(), preset)
    kernels = {name.partition("/")[0] for name in found}
    assert kernels == {"own"} and len(found) == 2
    # The dense layer at the end holds more of the weights than an edge may.
    assert 4 in found.values()


def beside_known_layers():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="x")
    x = layers.Conv2D(3, 3, padding="same", name="stem")(inputs)
    return keras.Model(inputs, layers.Dense(5, name="head")(ConvThenDense(name="own")(x)))


def test_overrides_reach_kernels_of_custom_layers_by_their_paths():
    model = beside_known_layers()
    (conv, dense) = (f"own/{layer.name}" for layer in (model.get_layer("own").conv, model.get_layer("own").dense))
    config = plain_config(tfptq.PerChannel(), weight_bits=4, target="any", edge_bits=None)
    result, found = bits_of(model, config)
    assert found == {"stem": 4, conv: 4, dense: 4, "head": 4}
    assert not result.report.unfitted
    overrides = [tfptq.override("own", weight_bits=3), tfptq.override(dense, weight_bits=6, rounding="coordinate")]
    result, found = bits_of(model, config.replace(overrides=overrides))
    assert found == {"stem": 4, conv: 3, dense: 6, "head": 4}
    assert {layer.name: layer.rounding for layer in result.report.layers}[dense] == "coordinate"
    assert {row.layer: row.bits for row in tfptq.inspect(result.tflite).weights} == found
    result, found = bits_of(model, config.replace(overrides=[tfptq.override(dense, skip=True)]))
    assert found == {"stem": 4, conv: 4, "head": 4}
    (left,) = result.report.float_operators
    assert left.reason == f"the config skips {dense!r}"


def test_overrides_that_match_no_kernel_are_refused():
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(overrides=[tfptq.override("no", skip=True)])
    with pytest.raises(ValueError, match="'no' matches no weighted layer; there are: own/"):
        tfptq.quantize_keras_model(with_a_custom_layer(), np.zeros((4, 12, 12, 3)), config, progress=False)
