"""Codes, biases and grids of a file in the wrappers of the Keras simulation."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from residual_models import inverted_residual, residual, with_random_weights
from stock_runtimes import details, run_decoded, signal_to_noise

import tfptq
from tfptq.config import PerChannel
from tfptq.layers import wrappers
from tfptq.tflite.model import TFLiteModel


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype(np.float32)


def quantize(model, data, preset="w8a8_channel", **changes):
    config = tfptq.QuantizationConfig.from_preset(preset).replace(**{"target": "any"} | changes)
    return tfptq.quantize_keras_model(model, data, config, progress=False)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="fused")(inputs)
    x = layers.Conv2D(4, 1, activation="sigmoid", name="fixed")(x)
    x = layers.Conv2D(4, 1, activation="silu", name="split")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def slots(network, images):
    result = quantize(network, images, input_type="int8", output_type="int8")
    return result, {wrapper.layer.name: wrapper for wrapper in wrappers(result.keras_model)}


def test_inputs_and_outputs_have_the_grids_of_the_file(slots):
    result, by_name = slots
    inputs, outputs = details(result.tflite)
    first, last = by_name["fused"].quantized_inputs[0].grid(), by_name["head"].quantized_outputs[0].grid()
    assert (np.float32(first.scale), first.zero_point) == inputs["image"]["quantization"]
    assert (np.float32(last.scale), last.zero_point) == outputs["output_0"]["quantization"]


def test_outputs_of_layers_with_activation_functions(slots):
    _, by_name = slots
    fused, fixed, split = (by_name[name].quantized_outputs[0].grid() for name in ("fused", "fixed", "split"))
    assert fused == by_name["fixed"].quantized_inputs[0].grid()
    assert fused.zero_point == -128
    assert (fixed.scale, fixed.zero_point) == (1 / 256, -128)
    assert split is None  # x * sigmoid(x) are two operators, neither of which is the layer's whole


def test_corrected_biases_are_those_of_the_file(slots, network):
    result, by_name = slots
    file = TFLiteModel(result.tflite)
    head = next(operator for operator in file.operators if file.operator_name(operator) == "FULLY_CONNECTED")
    _, kernel, bias = head.inputs
    scale = file.tensors[bias].quantization.scale
    np.testing.assert_allclose(file.constant(bias) * scale, np.asarray(by_name["head"].layer.bias), atol=scale.max())
    assert np.abs(np.asarray(by_name["head"].layer.bias) - np.asarray(network.get_layer("head").bias)).max() > 0
    assert file.shape(kernel) == (3, 4)


@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_layers_without_a_bias_have_the_correction_of_the_file(kind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="image")
    x = inputs
    for _ in range(2):
        if kind == "dense":
            x = layers.Dense(8, activation="relu", use_bias=False)(x)
        else:
            x = layers.Conv2D(8, 3, padding="same", use_bias=False)(layers.DepthwiseConv2D(3, use_bias=False)(x))
    images = np.random.default_rng(0).uniform(1, 3, (32, 6, 6, 3)).astype(np.float32)
    result = quantize(keras.Model(inputs, x), images, "w4a8_channel", edge_bits=None)
    expected = result.keras_model.predict(images, verbose=0)
    (found,) = run_decoded(result.tflite, {"image": images}).values()
    assert signal_to_noise(expected, found) > 35.0


def test_a_correction_that_the_simulation_leaves_out_is_noted():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.EinsumDense("abc,cd->abd", (None, 5), name="projection")(inputs))
    data = np.random.default_rng(0).uniform(1, 3, (32, 4, 6)).astype(np.float32)
    result = quantize(model, data, "w4a8_channel", edge_bits=None)
    assert any("'projection'" in warning and "has none" in warning for warning in result.report.notes)


@pytest.mark.parametrize("axes", ["e", "d", "be"])
@pytest.mark.parametrize("preset", ["w8a8_shift", "w4a8_channel"])
def test_a_bias_for_several_outputs_stays_beside_the_kernel(axes, preset):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8), name="x")
    projection = layers.EinsumDense("abc,cde->abde", (6, 2, 4), bias_axes=axes, bias_initializer="normal", name="heads")
    model = keras.Model(inputs, layers.Dense(3, name="head")(projection(inputs)))
    data = np.random.default_rng(0).normal(size=(32, 6, 8)).astype(np.float32)
    result = quantize(model, data, preset)
    (found,) = run_decoded(result.tflite, {"x": data}).values()
    assert signal_to_noise(model.predict(data, verbose=0), found) > 18.0
    assert signal_to_noise(result.keras_model.predict(data, verbose=0), found) > 18.0
    trained = result.keras_model.get_layer("quant_heads").layer.bias
    np.testing.assert_array_equal(trained, projection.bias)


def test_the_users_model_is_left_alone(network, images):
    before = [np.array(weight) for weight in network.get_weights()]
    quantize(network, images)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layers_that_are_used_twice_get_the_widest_grids(images):
    inputs = keras.Input((6, 6, 3), name="image")
    shared = layers.Conv2D(3, 1, name="shared", kernel_initializer=keras.initializers.Constant(1.0))
    result = quantize(keras.Model(inputs, shared(shared(inputs))), images)
    (wrapper,) = wrappers(result.keras_model)
    first, last = np.abs(images).max(), np.abs(np.asarray(result.keras_model(images))).max()
    for slot in (wrapper.quantized_inputs[0], wrapper.quantized_outputs[0]):
        low, high = slot.grid().real_range
        assert max(-low, high) > 1.2 * first
    assert max(map(abs, wrapper.quantized_outputs[0].grid().real_range)) >= 0.9 * last


@pytest.mark.parametrize(("bits", "least"), [(4, 8.0), (8, 25.0), (16, 35.0)])
def test_layers_that_are_used_twice_cut_nothing_off(bits, least):
    """The first use reads both signs, the second one larger values without a sign: no grid of a use holds both."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,), name="x")
    shared = layers.Dense(12, name="shared")
    x = layers.ReLU()(shared(inputs))
    x = shared(layers.Multiply()([x, x]))
    model = keras.Model(inputs, layers.Dense(4)(x))
    data = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    result = quantize(model, data, activation_bits=bits)
    (wrapper,) = (wrapper for wrapper in wrappers(result.keras_model) if wrapper.layer.name == "shared")
    low, high = wrapper.quantized_inputs[0].grid().real_range
    assert low < 0.9 * data.min() and high > 2.0 * data.max()
    assert signal_to_noise(model.predict(data, verbose=0), result.keras_model.predict(data, verbose=0)) > least


def test_layers_that_are_used_twice_have_no_grid_of_one_use_only():
    """The converter puts the 8 into the kernel of the first use, whose values the file then does not hold."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,), name="x")
    shared = layers.Dense(12, name="shared")
    x = shared(layers.ReLU()(8.0 * shared(inputs)))
    model = keras.Model(inputs, layers.Dense(4)(x))
    data = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    result = quantize(model, data)
    assert any("fused constants" in warning and "'shared'" in warning for warning in result.report.notes)
    assert signal_to_noise(model.predict(data, verbose=0), result.keras_model.predict(data, verbose=0)) > 25.0


def test_attention_has_a_grid_for_each_input():
    keras.utils.set_random_seed(0)
    query, value = keras.Input((5, 4), name="query"), keras.Input((6, 4), name="value")
    model = keras.Model([query, value], layers.MultiHeadAttention(2, 3, name="attention")(query, value))
    rng = np.random.default_rng(0)
    data = {"query": rng.normal(size=(8, 5, 4)).astype("f"), "value": 10 * rng.normal(size=(8, 6, 4)).astype("f")}
    result = quantize(model, data)
    (wrapper,) = wrappers(result.keras_model)
    grids = {slot.name: slot.grid() for slot in wrapper.quantized_inputs}
    assert grids["value"].scale > 5 * grids["query"].scale
    assert {slot.name for slot in wrapper.quantized_weights} == {
        "query/kernel",
        "key/kernel",
        "value/kernel",
        "attention_output/kernel",
    }
    assert np.isfinite(np.asarray(result.keras_model(data))).all()


@pytest.mark.parametrize("bits", [4, 6])
def test_few_bits_of_activations_are_simulated_only(network, images, bits):
    result = quantize(network, images, activation_bits=bits)
    grids = [wrapper.quantized_inputs[0].grid() for wrapper in wrappers(result.keras_model)]
    assert {grid.bits for grid in grids} == {bits}
    file = TFLiteModel(result.tflite)
    assert {8} == {
        8 * file.constant(op.inputs[1]).itemsize for op in file.operators if file.operator_name(op) == "CONV_2D"
    }


def test_weights_that_know_of_narrow_activations_are_better():
    gains = []
    for model in (with_random_weights(residual()), with_random_weights(inverted_residual())):
        images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
        expected = model.predict(images, verbose=0)

        def error(model=model, images=images, expected=expected, **changes):
            config = plain_config(PerChannel(), weight_bits=4, activation_bits=4, rounding="coordinate", target="any")
            result = tfptq.quantize_keras_model(model, images, config.replace(**changes), progress=False)
            assert {wrapper.quantized_inputs[0].grid().bits for wrapper in wrappers(result.keras_model)} == {4}
            return np.mean((result.keras_model.predict(images, verbose=0) - expected) ** 2)

        gains.append(10 * np.log10(error() / error(activation_aware=True)))
    assert np.mean(gains) > 1.0


def _factor(x):
    return layers.Lambda(lambda values: values * 0.01)(x)


BESIDE_KERNELS = {
    "factor before": lambda x: layers.Conv2D(8, 3, name="conv")(_factor(layers.Conv2D(4, 3, activation="relu")(x))),
    "factor after": lambda x: layers.ReLU()(_factor(layers.Conv2D(8, 3, name="conv")(x))),
    "summand after": lambda x: layers.Lambda(lambda values: values + 5.0)(layers.Conv2D(8, 3, name="conv")(x)),
    "pixels": lambda x: layers.Conv2D(8, 3, name="conv")(layers.Rescaling(2 / 255, -1.0)(x)),
}


@pytest.mark.parametrize("case", BESIDE_KERNELS)
@pytest.mark.parametrize("preset", ["w8a8_channel", "w4a8_channel"])
def test_constants_that_the_converter_fuses_into_kernels(images, case, preset):
    """The file computes with other numbers than the layers; the simulation gives its outputs all the same."""
    keras.utils.set_random_seed(0)
    data = (40 * images + 128).clip(0, 255).astype(np.uint8) if "pixels" in case else images
    inputs = keras.Input((6, 6, 3), name="x", dtype=data.dtype.name)
    x = layers.Flatten()(BESIDE_KERNELS[case](inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    result = quantize(model, data, preset)
    (outputs,) = run_decoded(result.tflite, {"x": data}).values()
    assert signal_to_noise(outputs, result.keras_model.predict(data, verbose=0)) > 30
    side = "writes" if "after" in case else "reads"
    assert sum(f"does not round what these read or write: 'conv' ({side})" in it for it in result.report.notes) == 1


def test_constants_in_several_kernels_are_told_in_one_line(images):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="x")
    x = layers.ReLU()(_factor(layers.Conv2D(4, 3, name="first")(inputs)))
    x = layers.ReLU()(_factor(layers.Conv2D(4, 3, name="second")(x)))
    result = quantize(keras.Model(inputs, x), images, "w8a8_channel")
    (warning,) = (line for line in result.report.notes if "fused constants" in line)
    assert warning.endswith(": 'first' (writes), 'second' (writes)")
