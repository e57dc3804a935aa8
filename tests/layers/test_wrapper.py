import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from plain_config import plain_config

from tfptq.config import PerChannel, PerTensor
from tfptq.core.affine import activation_grid
from tfptq.core.blocks import QuantizedWeight, quantize_nearest
from tfptq.layers import (
    ActivationQuantizer,
    DefaultQuantizeConfig,
    QuantizeAnnotate,
    QuantizeConfig,
    Quantizer,
    QuantizeWrapper,
    WeightQuantizer,
    quantize_scope,
)
from tfptq.layers.wrapper import input_names

CONFIG = plain_config(PerChannel(), weight_bits=4)


def wrap(layer, config=CONFIG):
    return QuantizeWrapper(layer, DefaultQuantizeConfig(config))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assign_all(wrapper, config=CONFIG):
    for quantized in wrapper.quantized_weights:
        view = quantized.view.to_view(keras.ops.convert_to_numpy(quantized.variable))
        quantized.assign(quantize_nearest(view, config.scales_of(view), config.weight_bits))


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


LAYERS = {
    "dense": (lambda: layers.Dense(3), (5,)),
    "conv": (lambda: layers.Conv2D(3, 3, activation="relu"), (5, 5, 2)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (5, 5, 2)),
    "transpose": (lambda: layers.Conv2DTranspose(3, 3), (4, 4, 2)),
    "separable": (lambda: layers.SeparableConv2D(3, 3), (5, 5, 2)),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (None, 3)), (4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_wrapper_computes_the_layer_until_something_is_assigned(name):
    make, shape = LAYERS[name]
    layer, inputs = make(), random(2, *shape)
    expected = layer(inputs)
    np.testing.assert_array_equal(wrap(layer)(inputs), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_wrapper_computes_the_layer_on_quantized_tensors(name):
    make, shape = LAYERS[name]
    layer, inputs = make(), random(2, *shape)
    wrapper = wrap(layer)
    outputs = numpy(wrapper(inputs))
    assign_all(wrapper)
    grid_in, grid_out = activation_grid(-2.0, 2.0), activation_grid(float(outputs.min()), float(outputs.max()))
    wrapper.quantized_inputs[0].assign(grid_in)
    wrapper.quantized_outputs[0].assign(grid_out)
    expected = numpy(layer(grid_in.dequantize(grid_in.quantize(inputs))))  # The kernels are on their grids by now.
    np.testing.assert_array_equal(wrapper(inputs), grid_out.dequantize(grid_out.quantize(expected)))


@pytest.mark.parametrize(
    "config",
    [plain_config(PerTensor(), weight_bits=3), CONFIG, plain_config(PerTensor(), scaler="shift")],
)
def test_assigned_codes_come_back(config):
    wrapper = wrap(layers.Conv2D(3, 3), config)
    wrapper(random(1, 5, 5, 2))
    (quantized,) = wrapper.quantized_weights
    view = random(3, 2, 9) * np.float32([1.0, 0.1, 0.003])[:, None, None]
    scales = config.scales_of(view)
    limit = 2 ** (config.weight_bits - 1) - 1
    codes = np.random.default_rng(1).integers(-limit, limit + 1, (3, 2, 9)).astype(np.int8)  # Any codes, not nearest.
    weight = QuantizedWeight(codes, scales, config.weight_bits)
    quantized.assign(weight)
    np.testing.assert_array_equal(quantized.quantized_weight().codes, codes)
    np.testing.assert_array_equal(quantized.fake_quantized(), quantized.view.from_view(weight.dequantize()))
    np.testing.assert_array_equal(quantized.fake_quantized(), quantized.variable)


def test_codes_of_other_bits_or_shape_are_refused():
    wrapper = wrap(layers.Dense(3))
    wrapper(random(1, 2))
    (quantized,) = wrapper.quantized_weights
    view = random(3, 2, 1)
    scales = CONFIG.scales_of(view)
    with pytest.raises(ValueError, match=r"4-bit codes .* given 8-bit codes"):
        quantized.assign(quantize_nearest(view, scales, 8))
    with pytest.raises(ValueError, match=r"codes \(3, 2, 1\) and was given .* \(3, 4, 1\)"):
        quantized.assign(QuantizedWeight(np.zeros((3, 4, 1), np.int8), scales, 4))


def test_gradients_pass_straight_through():
    layer = layers.Dense(2, use_bias=False)
    wrapper = wrap(layer)
    inputs = tf.constant(random(4, 3))
    wrapper(inputs)
    assign_all(wrapper)
    kernel = numpy(layer.kernel).copy()
    kernel[0, 0] = 100.0  # Far outside of the grid: clipped.
    layer.kernel.assign(kernel)
    wrapper.quantized_inputs[0].assign(activation_grid(-1.0, 1.0))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(wrapper(inputs))
    inputs_gradient, kernel_gradient = tape.gradient(loss, [inputs, layer.kernel.value])
    grid = wrapper.quantized_inputs[0].grid()
    on_grid = grid.dequantize(grid.quantize(inputs.numpy()))
    expected = np.repeat(on_grid.sum(axis=0)[:, None], 2, axis=1)
    expected[0, 0] = 0.0
    np.testing.assert_allclose(kernel_gradient, expected, rtol=1e-6)
    quantized = numpy(wrapper.quantized_weights[0].fake_quantized())
    inside = (inputs.numpy() > grid.real_range[0]) & (inputs.numpy() < grid.real_range[1])
    np.testing.assert_allclose(inputs_gradient, inside * quantized.sum(axis=1), rtol=1e-6)
    assert not inside.all()


def test_fit_trains_kernels_and_keeps_scales():
    inputs = keras.Input((5, 5, 2))
    x = wrap(layers.Conv2D(3, 3, name="conv"))(inputs)
    outputs = wrap(layers.Dense(1, name="head"))(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    for wrapper in model.layers:
        if isinstance(wrapper, QuantizeWrapper):
            assign_all(wrapper)
    before = [numpy(variable).copy() for variable in model.non_trainable_weights]
    assert len(model.trainable_weights) == 4
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    x, y = random(32, 5, 5, 2), random(32, 1)
    history = model.fit(x, y, epochs=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    for variable, value in zip(model.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_functions_traced_before_assigning_see_the_grids():
    wrapper = wrap(layers.Dense(2))
    inputs = random(3, 4)
    wrapper(inputs)
    function = tf.function(wrapper)
    before = function(inputs)
    assign_all(wrapper)
    wrapper.quantized_outputs[0].assign(activation_grid(-0.1, 0.1))
    assert not np.allclose(before, function(inputs), atol=1e-3)
    np.testing.assert_array_equal(function(inputs), wrapper(inputs))


def test_tflite_conversion_computes_the_simulation():
    inputs = keras.Input((6,), batch_size=1)
    model = keras.Model(inputs, wrap(layers.Dense(4, activation="relu"))(inputs))
    assign_all(model.layers[1])
    grid = activation_grid(-2.0, 2.0)
    model.layers[1].quantized_inputs[0].assign(grid)
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for seed in range(10):
        sample = grid.dequantize(grid.quantize(random(1, 6, seed=seed)))
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(found, model(sample), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unbuilt", [True, False])
def test_attention_takes_all_ways_of_calling(unbuilt):
    layer, x, y = layers.MultiHeadAttention(2, 4), random(2, 5, 6), random(2, 7, 6, seed=1)
    wrapper = wrap(layer)
    assert input_names(layer) == ("query", "value", "key")
    if not unbuilt:
        layer(x, y)
    outputs = wrapper(query=x, value=y, use_causal_mask=True)
    np.testing.assert_array_equal(outputs, layer(x, y, use_causal_mask=True))
    outputs, scores = wrapper(x, y, return_attention_scores=True, attention_mask=np.ones((2, 5, 7), bool))
    np.testing.assert_array_equal(scores, layer(x, y, return_attention_scores=True)[1])
    assert [quantized.name for quantized in wrapper.quantized_inputs] == ["query", "value", "key"]
    wrapper.quantized_inputs[1].assign(activation_grid(-0.1, 0.1))
    assert not np.allclose(wrapper(x, y), layer(x, y), atol=1e-3)
    assert len(wrapper.quantized_weights) == 4


def test_attention_with_dropout_draws_new_masks_in_training():
    wrapper = wrap(layers.MultiHeadAttention(2, 4, dropout=0.5))
    x = random(2, 5, 6)
    assert not np.allclose(wrapper(x, x, training=True), wrapper(x, x, training=True))
    np.testing.assert_array_equal(wrapper(x, x, training=False), wrapper(x, x))


def test_masks_and_losses_of_the_layer_survive():
    inputs = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(5, 6, mask_zero=True)(inputs)
    attention = layers.MultiHeadAttention(1, 4)
    plain = keras.Model(inputs, attention(embedded, embedded))
    wrapped = keras.Model(inputs, wrap(attention)(embedded, embedded))
    tokens = np.array([[1, 2, 0, 0]])
    np.testing.assert_array_equal(plain(tokens), wrapped(tokens))
    assert wrapped(tokens)._keras_mask is not None
    wrapper = wrap(layers.Dense(2, activity_regularizer="l2", kernel_regularizer="l2"))
    wrapper(random(2, 3))
    assert len(wrapper.losses) == 2


def test_shared_layer_has_one_wrapper():
    wrapper = wrap(layers.Dense(4))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, wrapper(wrapper(inputs)))
    assert sum(isinstance(layer, QuantizeWrapper) for layer in model.layers) == 1
    x = random(2, 4)
    np.testing.assert_allclose(model(x), wrapper.layer(wrapper.layer(x)), rtol=1e-6)


def test_saved_model_computes_the_same_bits(tmp_path):
    inputs = keras.Input((5, 5, 2))
    x = wrap(layers.Conv2D(4, 3, name="conv"), plain_config(PerTensor(), scaler="shift"))(inputs)
    x = layers.Reshape((9, 4))(x)
    x = wrap(layers.MultiHeadAttention(2, 4, name="attention"))(x, x)
    model = keras.Model(inputs, wrap(layers.Dense(3, name="head"))(x))
    for wrapper in model.layers:
        if isinstance(wrapper, QuantizeWrapper):
            assign_all(wrapper, wrapper.quantize_config.layer_config)
            wrapper.quantized_inputs[0].assign(activation_grid(-2.0, 3.0))
            wrapper.quantized_outputs[0].assign(activation_grid(-4.0, 3.0))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = random(3, 5, 5, 2)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    first, second = model.layers[1].quantized_weights[0], loaded.layers[1].quantized_weights[0]
    np.testing.assert_array_equal(second.quantized_weight().codes, first.quantized_weight().codes)
    np.testing.assert_array_equal(second.quantized_weight().scales.factors, first.quantized_weight().scales.factors)
    assert loaded.layers[1].quantized_outputs[0].grid() == activation_grid(-4.0, 3.0)
    assert loaded.layers[1].name == "quant_conv"


class Halve(Quantizer):
    """A quantizer of a user: halves, and shows whether the model trains."""

    def build(self, tensor_shape, name, layer):
        self.shape = tensor_shape
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        return inputs * (0.25 if training else 0.5)

    def get_config(self):
        return {}


class HalveEverything(QuantizeConfig):
    """TFMOT's seven methods as a user writes them."""

    def __init__(self):
        self.quantizers = [Halve(), Halve(), Halve()]

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, self.quantizers[0])]

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, self.quantizers[1])]

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel.assign(quantize_weights[0])

    def set_quantize_activations(self, layer, quantize_activations):
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        return [self.quantizers[2]]

    def get_config(self):
        return {}


def test_config_of_a_user_is_followed(tmp_path):
    config = HalveEverything()
    layer = layers.Dense(3, activation="relu")
    wrapper = QuantizeWrapper(layer, config)
    inputs = random(2, 4)
    outputs = numpy(wrapper(inputs))
    np.testing.assert_allclose(outputs, numpy(layer(inputs)) / 8, rtol=1e-6)
    np.testing.assert_allclose(wrapper(inputs, training=True), numpy(layer(inputs)) / 64, rtol=1e-6)
    assert layer.activation is keras.activations.relu
    assert [quantizer.shape for quantizer in config.quantizers] == [(4, 3), None, (2, 3)]
    with pytest.raises(TypeError, match="Halve; codes need a WeightQuantizer"):
        wrapper.quantized_weights[0].assign_scales(None)
    with pytest.raises(TypeError, match="takes no grid"):
        wrapper.quantized_outputs[0].assign(activation_grid(0.0, 1.0))
    model = keras.Sequential([keras.Input((4,)), wrapper])
    model.save(tmp_path / "model.keras")
    with quantize_scope({"HalveEverything": HalveEverything}):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), outputs)


class KernelOnly(HalveEverything):
    """A 4-bit kernel in the layout of Dense."""

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, WeightQuantizer(bits=4))]

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        assert not quantize_activations

    def get_output_quantizers(self, layer):
        return []


def test_config_of_a_user_may_hold_our_quantizers():
    wrapper = QuantizeWrapper(layers.Dense(3), KernelOnly())
    wrapper(random(2, 4))
    assign_all(wrapper, plain_config(PerTensor(), weight_bits=4))
    assert len(np.unique(wrapper.quantized_weights[0].quantized_weight().codes)) > 3
    assert wrapper.quantized_inputs == wrapper.quantized_outputs == ()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="use quantize_annotate_model"):
        QuantizeAnnotate(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="wraps one Keras 3 layer"):
        wrap(wrap(layers.Dense(3)))
    with pytest.raises(TypeError, match="needs a quantize_config"):
        QuantizeWrapper(layers.Dense(3), None)
    with pytest.raises(TypeError, match="pass a QuantizeConfig"):
        QuantizeWrapper(layers.Dense(3), ActivationQuantizer())
