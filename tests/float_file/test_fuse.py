import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from keras import layers
from stock_runtimes import run

import tfptq
from tfptq.float_file.convert import convert_float
from tfptq.float_file.fuse import fuse_biases, fuse_dilations
from tfptq.float_file.simplify import simplify
from tfptq.tflite.model import TFLiteModel


def network(shape, *stack):
    inputs = keras.Input(shape, name="x")
    result = inputs
    for layer in stack:
        result = layer(result)
    model = keras.Model(inputs, result)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def kinds(model):
    return [model.operator_name(operator) for operator in model.operators]


def check_simplified(keras_model, expected_kinds):
    """The float file has these operators, and computes what the model does for one sample and for several."""
    model = TFLiteModel(convert_float(keras_model))
    simplify(model)
    assert kinds(model) == expected_kinds
    for samples in (1, 3):
        x = np.random.default_rng(1).normal(size=(samples, *keras_model.input_shape[1:])).astype(np.float32)
        expected = keras_model.predict(x, verbose=0)
        (found,) = run(model.to_bytes(), {"x": x}).values()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    return model


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel,dilation", [(3, 2), (3, 3), (2, 3), ((1, 3), (1, 2)), ((3, 2), (3, 2)), (5, 2)])
@pytest.mark.parametrize("kind", [layers.Conv2D, layers.DepthwiseConv2D])
def test_dilated_convolutions_are_one_operator(kind, kernel, dilation, padding):
    size = (4,) if kind is layers.Conv2D else ()
    layer = kind(*size, kernel_size=kernel, dilation_rate=dilation, padding=padding, activation="relu")
    expected = "CONV_2D" if kind is layers.Conv2D else "DEPTHWISE_CONV_2D"
    model = check_simplified(network((11, 14, 3), layer), [expected])
    options, wanted = model.operators[0].builtinOptions, (dilation,) * 2 if isinstance(dilation, int) else dilation
    assert (options.dilationHFactor, options.dilationWFactor) == wanted


@pytest.mark.parametrize("padding", ["same", "valid", "causal"])
@pytest.mark.parametrize("dilation", [2, 4])
def test_dilated_convolutions_of_sequences(padding, dilation):
    model = network((13, 3), layers.Conv1D(4, 3, dilation_rate=dilation, padding=padding, activation="relu"))
    pad = ["PAD"] if padding == "causal" else []
    check_simplified(model, [*pad, "EXPAND_DIMS", "CONV_2D", "RESHAPE"])


def test_a_stack_of_convolutions_of_sequences_stays_a_picture_of_one_row():
    stack = [layers.Conv1D(4, 3, dilation_rate=rate, padding="same", activation="relu") for rate in (1, 2, 4)]
    check_simplified(network((13, 3), *stack), ["EXPAND_DIMS", "CONV_2D", "CONV_2D", "CONV_2D", "RESHAPE"])


def test_a_sequence_of_open_length_keeps_its_dilation_apart():
    model = TFLiteModel(convert_float(network((None, 3), layers.Conv1D(4, 3, dilation_rate=2, padding="valid"))))
    assert fuse_dilations(model) == 0


def test_a_dilated_convolution_whose_result_is_read_twice_is_one_operator_too():
    inputs = keras.Input((11, 14, 3), name="x")
    spread = layers.Conv2D(4, 3, dilation_rate=2)(inputs)
    model = keras.Model(inputs, [spread, layers.ReLU()(spread)])
    float_file = TFLiteModel(convert_float(model))
    before = kinds(float_file)
    assert fuse_dilations(float_file) == before.count("BATCH_TO_SPACE_ND") == 1


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "gelu"])
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6)])
def test_dense_layers_on_several_axes_have_their_bias(shape, activation):
    model = network(shape, layers.Dense(4, activation=activation), layers.Dense(3))
    separate = ["GELU"] if activation == "gelu" else []
    check_simplified(model, ["FULLY_CONNECTED", *separate, "FULLY_CONNECTED"])


def test_projections_of_attention_have_their_biases():
    inputs = keras.Input((5, 6), name="x")
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    float_file = TFLiteModel(convert_float(model))
    simplify(float_file)
    assert "ADD" not in kinds(float_file)
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)
    (found,) = run(float_file.to_bytes(), {"x": x}).values()
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (5,), (1, 4, 5)])
def test_only_constants_of_one_value_a_channel_are_biases(shape):
    graph = FloatModel()
    x = graph.input("x", (1, 4, 6))
    kernel = graph.constant("kernel", np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32))
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = True
    product = graph.add("FULLY_CONNECTED", [x, kernel, -1], (1, 4, 5), "product", options)
    summand = graph.constant("summand", np.random.default_rng(2).normal(size=shape).astype(np.float32))
    model = graph.finish(graph.add("ADD", [product, summand], (1, 4, 5), "sum", schema.AddOptionsT()))
    assert fuse_biases(model) == (np.prod(shape) == 5)


def test_products_of_activations_have_no_bias():
    graph = FloatModel()
    x, factor = graph.input("x", (1, 6)), graph.input("factor", (5, 6))
    product = graph.add("FULLY_CONNECTED", [x, factor, -1], (1, 5), "product", schema.FullyConnectedOptionsT())
    summand = graph.constant("summand", np.ones(5, np.float32))
    model = graph.finish(graph.add("ADD", [product, summand], (1, 5), "sum", schema.AddOptionsT()))
    assert fuse_biases(model) == 0


def test_a_result_that_leaves_the_model_keeps_its_addition():
    inputs = keras.Input((5, 6), name="x")
    dense = layers.Dense(4, use_bias=False)(inputs)
    model = keras.Model(inputs, [dense, dense + np.arange(4, dtype=np.float32)])
    float_file = TFLiteModel(convert_float(model))
    simplify(float_file)
    assert kinds(float_file).count("ADD") == 1


@pytest.mark.parametrize("preset", ["w8a8_shift", "w4a8_channel"])
def test_quantized_without_additions_and_on_a_grid_in_the_simulation(preset):
    model = network((9, 6), layers.Dense(8, activation="relu"), layers.Conv1D(4, 3, dilation_rate=2), layers.Dense(3))
    x = np.random.default_rng(3).normal(size=(64, 9, 6)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, x, preset, progress=False)
    assert not {"ADD", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"} & set(kinds(TFLiteModel(result.tflite)))
    assert all(layer.quantized_outputs[0].grid() is not None for layer in tfptq.layers.wrappers(result.keras_model))
    assert not any("fused" in note for note in result.report.notes)
    (found,) = run(result.tflite, {"x": x}).values()
    simulated = result.keras_model.predict(x, verbose=0)
    assert np.abs(found - simulated).mean() < 0.02 * np.abs(simulated).max()


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.DepthwiseConv2D])
def test_dilated_convolutions_are_the_same_on_all_runtimes(kind):
    size = (4,) if kind is layers.Conv2D else ()
    model = network((11, 14, 3), kind(*size, kernel_size=3, dilation_rate=2, padding="same", activation="relu"))
    x = np.random.default_rng(3).normal(size=(16, 11, 14, 3)).astype(np.float32)
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(output_type="int8")
    content = tfptq.quantize_keras_model(model, x, config, progress=False).tflite
    (expected,) = run(content, {"x": x}, "REF").values()
    for runtime in ("litert", "tf.lite"):
        for resolver in ("AUTO", "BUILTIN", "REF"):
            (found,) = run(content, {"x": x}, resolver, runtime).values()
            assert np.abs(found.astype(int) - expected).max() <= 1
