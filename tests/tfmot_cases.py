"""Tests of ``tfptq.tfmot``, run by ``test_tfmot.py`` in their own process: TFMOT turns tf.keras into Keras 2."""

import numpy as np
import pytest
import tensorflow_model_optimization
import tf_keras
from plain_config import plain_config

from tfptq import tfmot
from tfptq.config import PerTensor, QuantizationConfig
from tfptq.core.blocks import WeightView, quantize_nearest

quantization = tensorflow_model_optimization.quantization.keras
layers = tf_keras.layers

VIEWS = {
    "conv": WeightView((3, 3, 3, 4), (3,), (2,), (0, 1)),
    "depthwise": WeightView((3, 3, 4, 1), (2, 3), (), (0, 1)),
    "transpose": WeightView((3, 3, 2, 4), (2,), (3,), (0, 1)),
    "head": WeightView((72, 3), (1,), (0,)),
}


def network():
    inputs = layers.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2DTranspose(2, 3, padding="same", name="transpose")(x)
    return tf_keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


def simulate(model, config):
    quantize_config = tfmot.DefaultQuantizeConfig(config)

    def annotate(layer):
        copy = layer.__class__.from_config(layer.get_config())
        return quantization.quantize_annotate_layer(copy, quantize_config) if layer.weights else copy

    annotated = tf_keras.models.clone_model(model, clone_function=annotate)
    annotated.set_weights(model.get_weights())
    with quantization.quantize_scope(tfmot.CUSTOM_OBJECTS):
        return quantization.quantize_apply(annotated)


def samples():
    return np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)


def test_classes_are_tfmots():
    assert issubclass(tfmot.DefaultQuantizeConfig, quantization.QuantizeConfig)
    assert issubclass(tfmot.WeightQuantizer, quantization.quantizers.Quantizer)


@pytest.mark.parametrize("preset", ["w8a8_shift", "w8a8_channel", "w8a8_layer"])
def test_simulation_uses_the_scales_of_core(preset):
    config, model = QuantizationConfig.from_preset(preset), network()
    simulation = simulate(model, config)
    with pytest.raises(ValueError, match="no scales yet"):
        tfmot.quantized_weights(simulation)
    tfmot.fit_weight_scales(simulation)
    weights = tfmot.quantized_weights(simulation)
    assert set(weights) == set(VIEWS)
    for name, view in VIEWS.items():
        kernel = view.to_view(model.get_layer(name).get_weights()[0])
        expected = quantize_nearest(kernel, config.scales_of(kernel), 8)
        np.testing.assert_array_equal(weights[name].codes, expected.codes)
        np.testing.assert_array_equal(weights[name].scales.values(), expected.scales.values())
    ((kernel, quantizer, variables),) = simulation.get_layer("quant_head")._weight_vars
    expected = VIEWS["head"].from_view(weights["head"].dequantize())
    np.testing.assert_array_equal(quantizer(kernel, False, variables), expected)


def test_training_refits_scales_and_a_saved_model_reloads(tmp_path):
    simulation = simulate(network(), QuantizationConfig.from_preset("w8a8_shift"))
    simulation.compile(tf_keras.optimizers.Adam(0.01), "mse")
    history = simulation.fit(samples(), np.zeros((8, 3)), epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    trained = tfmot.quantized_weights(simulation)  # Has scales although fit_weight_scales was never called.
    simulation.save(tmp_path / "simulation.h5")
    with quantization.quantize_scope(tfmot.CUSTOM_OBJECTS):
        loaded = tf_keras.models.load_model(tmp_path / "simulation.h5")
    expected = simulation.predict(samples(), verbose=0)
    np.testing.assert_array_equal(loaded.predict(samples(), verbose=0), expected)
    for name, weight in tfmot.quantized_weights(loaded).items():
        np.testing.assert_array_equal(weight.codes, trained[name].codes)


def test_configs_survive_a_round_trip():
    quantizer = tfmot.WeightQuantizer(4, PerTensor(), "shift", "mse", WeightView((2, 3), (1,), (0,)))
    assert tfmot.WeightQuantizer.from_config(quantizer.get_config()).get_config() == quantizer.get_config()
    config = tfmot.DefaultQuantizeConfig(plain_config(weight_bits=5))
    assert tfmot.DefaultQuantizeConfig.from_config(config.get_config()).layer_config == config.layer_config


def test_bad_use_is_refused():
    with pytest.raises(ValueError, match="8 bits at most"):
        tfmot.DefaultQuantizeConfig(plain_config(activation_bits=16))
    with pytest.raises(ValueError, match="is a ReLU; DefaultQuantizeConfig takes"):
        tfmot.DefaultQuantizeConfig(plain_config()).get_weights_and_quantizers(layers.ReLU())
    with pytest.raises(ValueError, match="weight_bits"):
        tfmot.WeightQuantizer(7)
