"""Kernels in layers that tfptq does not know: quantized where the converter makes ordinary operators of them."""

import keras
import numpy as np
import pytest
from keras import layers
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


@pytest.mark.parametrize("preset", ["w4a8_channel", "w4a8_block", "w4a8_mixed"])
def test_presets_that_have_nothing_to_equalize_or_to_choose_bits_for(preset):
    model = with_a_custom_layer()
    data = RNG.normal(size=(32, 12, 12, 3)).astype(np.float32)
    report = tfptq.quantize_keras_model(model, data, preset, progress=False).report
    assert [(layer.bits, layer.granularity) for layer in report.layers] == [(8, "channel")] * 2
    assert sum("is quantized per channel at 8 bits" in line for line in report.notes) == 2


def test_overrides_have_no_layer_to_match():
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(overrides=[tfptq.override("own", skip=True)])
    with pytest.raises(ValueError, match="'own' matches no weighted layer; there are: none that tfptq knows"):
        tfptq.quantize_keras_model(with_a_custom_layer(), np.zeros((4, 12, 12, 3)), config, progress=False)
