import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config

from tfptq.config import PerChannel, PerTensor, override
from tfptq.layers import DefaultQuantizeConfig, QuantizeAnnotate, QuantizeWrapper, quantize_scope, strip, wrappers
from tfptq.layers.quantize import quantize_annotate_layer, quantize_annotate_model, quantize_apply, quantize_model


def functional():
    """Shared layer, operation, depthwise and dense layers."""
    inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="stem")(inputs)
    shared = layers.Conv2D(4, 1, name="shared")
    x = shared(x) + shared(2.0 * x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)), name="small")


def sequential():
    return keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3, name="stem"), layers.Flatten()])


def samples(count=4):
    return np.random.default_rng(0).normal(size=(count, 6, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("make", [functional, sequential])
def test_annotated_model_computes_the_same_and_the_original_is_untouched(make):
    model = make()
    expected = model.predict(samples(), verbose=0)
    annotated = quantize_annotate_model(model)
    np.testing.assert_array_equal(annotated.predict(samples(), verbose=0), expected)
    assert any(isinstance(layer, QuantizeAnnotate) for layer in annotated.layers)
    applied = quantize_apply(annotated, "w8a8_channel")
    assert any(isinstance(layer, QuantizeAnnotate) for layer in annotated.layers)
    np.testing.assert_array_equal(model.predict(samples(), verbose=0), expected)
    assert not any(isinstance(layer, QuantizeAnnotate | QuantizeWrapper) for layer in model.layers)
    error = np.abs(applied.predict(samples(), verbose=0) - expected).max()
    assert 0.0 < error < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("preset", ["w8a8_shift", "w8a8_channel", "w8a8_layer"])
def test_wrappers_come_in_graph_order_with_scales_of_the_preset(preset):
    model = quantize_model(functional(), preset)
    assert [wrapper.layer.name for wrapper in wrappers(model)] == ["stem", "shared", "depthwise", "head"]
    assert [wrapper.name for wrapper in wrappers(model)] == [f"quant_{w.layer.name}" for w in wrappers(model)]
    scales = wrappers(model)[0].quantized_weights[0].quantized_weight().scales
    assert (scales.kind, scales.factors.shape) == {
        "w8a8_shift": ("shift", (4, 1)),
        "w8a8_channel": ("float", (4, 1)),
        "w8a8_layer": ("float", (1, 1)),
    }[preset]


def test_overrides_and_skipped_layers():
    config = plain_config(
        PerTensor(), overrides=(override("s*", weight_bits=4, granularity=PerChannel()), override("head", skip=True))
    )
    for model in (
        quantize_apply(quantize_annotate_model(functional(), config)),
        quantize_apply(quantize_annotate_model(functional()), config),
        quantize_model(functional(), config),
    ):
        by_name = {wrapper.layer.name: wrapper.quantized_weights[0].quantizer.config for wrapper in wrappers(model)}
        assert {name: (item.weight_bits, item.granularity) for name, item in by_name.items()} == {
            "stem": (4, PerChannel()),
            "shared": (4, PerChannel()),
            "depthwise": (8, PerTensor()),
        }
        assert isinstance(model.get_layer("head"), layers.Dense)


def test_annotated_layers_keep_their_config_and_others_stay_float():
    config = DefaultQuantizeConfig(plain_config(weight_bits=2))
    model = keras.Sequential(
        [
            keras.Input((5,)),
            quantize_annotate_layer(layers.Dense(4, name="first"), config),
            layers.Dense(4, name="second"),
            quantize_annotate_layer(layers.Dense(4, name="third")),
        ]
    )
    x = np.ones((2, 5), np.float32)
    model(x)
    applied = quantize_apply(model, plain_config(weight_bits=6))
    assert [wrapper.layer.name for wrapper in wrappers(applied)] == ["first", "third"]
    assert [wrapper.quantized_weights[0].quantizer.bits for wrapper in wrappers(applied)] == [2, 6]
    np.testing.assert_array_equal(applied.get_layer("second").kernel, model.layers[1].kernel)
    everything = quantize_apply(quantize_annotate_model(model, "w8a8_layer"))
    assert [wrapper.quantized_weights[0].quantizer.bits for wrapper in wrappers(everything)] == [2, 8, 8]


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_annotated_without_a_config_get_that_of_quantize_model(bits):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            quantize_annotate_layer(layers.Dense(4, name="first")),
            quantize_annotate_layer(layers.Dense(4, name="own"), DefaultQuantizeConfig(plain_config())),
            layers.Dense(4, name="second"),
            quantize_annotate_layer(layers.Dense(4, name="skipped")),
            layers.Dense(4, name="skipped too"),
        ]
    )
    model(np.ones((2, 5), np.float32))
    skipped = override("skipped*", skip=True)
    config = plain_config(PerChannel(), weight_bits=bits, overrides=(skipped, override("first", weight_bits=6)))
    found = {
        wrapper.layer.name: wrapper.quantized_weights[0].quantizer
        for wrapper in wrappers(quantize_model(model, config))
    }
    assert {name: quantizer.bits for name, quantizer in found.items()} == {"first": 6, "own": 8, "second": bits}
    granularities = {name: quantizer.config.granularity for name, quantizer in found.items()}
    assert granularities == {"first": PerChannel(), "own": PerTensor(), "second": PerChannel()}


class OwnConfig(DefaultQuantizeConfig):
    """Not registered with Keras."""


def test_a_config_that_keras_does_not_know_is_named():
    own = OwnConfig(plain_config(weight_bits=6))
    model = keras.Sequential([keras.Input((5,)), quantize_annotate_layer(layers.Dense(4, name="dense"), own)])
    with pytest.raises(ValueError, match=r"'quant_dense' .* function 'OwnConfig', which.*quantize_scope\(") as caught:
        quantize_apply(model)
    assert "__init__" not in str(caught.value)
    with quantize_scope({"OwnConfig": OwnConfig}):
        assert wrappers(quantize_apply(model))[0].quantized_weights[0].quantizer.bits == 6


def test_a_model_that_nothing_can_be_quantized_of():
    inputs = keras.Input((5,))
    with pytest.raises(ValueError, match="no layer of 'plain' is annotated"):
        quantize_model(keras.Model(inputs, layers.ReLU()(inputs), name="plain"))


def test_annotated_attention_that_is_not_built():
    inputs = keras.Input((5, 6))
    attention = quantize_annotate_layer(layers.MultiHeadAttention(2, 4, name="attention"))
    model = keras.Model(inputs, attention(inputs, inputs))
    assert len(wrappers(quantize_apply(model))[0].quantized_weights) == 4


def test_stripped_model_is_plain_and_computes_with_the_quantized_weights():
    simulation = quantize_model(functional(), plain_config(PerChannel(), weight_bits=4))
    expected = simulation.predict(samples(), verbose=0)
    kernel = keras.ops.convert_to_numpy(wrappers(simulation)[0].layer.kernel)
    plain = strip(simulation)
    assert not wrappers(plain)
    assert [layer.name for layer in plain.layers if layer.weights] == ["stem", "shared", "depthwise", "head"]
    np.testing.assert_array_equal(plain.predict(samples(), verbose=0), expected)
    np.testing.assert_array_equal(wrappers(simulation)[0].layer.kernel, kernel)
    assert all(
        len(np.unique(channel)) <= 15
        for channel in np.moveaxis(keras.ops.convert_to_numpy(plain.get_layer("stem").kernel), -1, 0)
    )


def test_layers_of_the_result_are_called_in_one_graph_only():
    model = quantize_model(functional())
    inner = keras.Model(model.inputs, model.get_layer("quant_depthwise").output)
    assert inner.predict(samples(), verbose=0).shape == (4, 2, 2, 4)


def test_nested_model_is_flattened():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="inside")])
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2, name="outside")(inner(inputs)))
    assert [wrapper.layer.name for wrapper in wrappers(quantize_model(model))] == ["inside", "outside"]


def test_simulation_reloads(tmp_path):
    model = quantize_model(functional())
    model.save(tmp_path / "simulation.keras")
    loaded = keras.models.load_model(tmp_path / "simulation.keras")
    np.testing.assert_array_equal(loaded.predict(samples(), verbose=0), model.predict(samples(), verbose=0))
    assert len(wrappers(loaded)) == 4


def test_model_without_annotations_is_refused():
    with pytest.raises(ValueError, match=r"no layer of 'small' is annotated; use quantize_annotate_model"):
        quantize_apply(functional())


def test_override_that_matches_nothing_is_refused():
    config = plain_config(overrides=(override("haed", weight_bits=4),))
    for apply in (
        lambda: quantize_annotate_model(functional(), config),
        lambda: quantize_apply(quantize_annotate_model(functional()), config),
    ):
        with pytest.raises(ValueError, match=r"'haed' matches no weighted layer; there are: stem, shared"):
            apply()


def test_layer_without_a_default_needs_a_config():
    with pytest.raises(ValueError, match=r"ReLU, which tfptq does not know how to quantize; pass a quantize_config"):
        quantize_annotate_layer(layers.ReLU())


def test_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="subclassed"):
        quantize_annotate_model(Subclassed())
