"""Kernels that the converter multiplied with a factor for each input channel."""

import keras
import numpy as np
import pytest
from keras import layers

import tfptq
from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.float_file.input_factors import _input_factors
from tfptq.pipeline.steps import kernel_views

RNG = np.random.default_rng(0)


def with_random_norms(inputs, outputs):
    """A model whose normalizations have scales that differ."""
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if "Normalization" in type(layer).__name__:
            layer.set_weights([RNG.uniform(0.5, 2.0, weight.shape) for weight in layer.weights])
    return model


def dense_model(norm, readers):
    inputs = keras.Input((16,), name="x")
    x = norm(name="norm")(layers.Dense(24, activation="relu", name="stem")(inputs))
    x = [layers.Dense(20, activation="relu", name=f"reader{number}")(x) for number in range(readers)]
    x = x[0] if readers == 1 else layers.Multiply()(x)
    return with_random_norms(inputs, layers.Dense(3, name="head")(x))


def float_file_of(model, shape):
    """The float file, checked: all kernels are those of Keras, and it computes the same."""
    weights = kernel_views(model)
    float_file = make_float_file(model, weights)
    assert {kernel.id for kernel in float_file.kernels} == set(weights)
    for kernel in float_file.kernels:
        np.testing.assert_array_equal(kernel.values, weights[kernel.id])
        for use in kernel.uses:
            np.testing.assert_array_equal(use.view.to_view(float_file.model.constant(use.tensor)), kernel.values)
    check_float_file(float_file, model, {"x": RNG.normal(size=(8, *shape)).astype(np.float32)}, 1e-5)
    return float_file


def count(float_file, kind):
    return [float_file.model.operator_name(operator) for operator in float_file.model.operators].count(kind)


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("norm", [layers.RMSNormalization, layers.LayerNormalization])
def test_the_config_reaches_dense_layers_behind_a_normalization(norm, readers):
    model = dense_model(norm, readers)
    float_file_of(model, (16,))
    samples = RNG.normal(size=(64, 16)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, samples, "w4a8_channel", progress=False)
    names = [f"reader{number}" for number in range(readers)]
    assert {layer.name: layer.bits for layer in result.report.layers} == {
        "stem": 4,  # at the edge, but no small part of the weights
        **dict.fromkeys(names, 4),
        "head": 8,
    }
    assert not any("no weight of a Keras layer" in note for note in result.report.notes)


def test_layers_that_read_the_same_share_one_product():
    one, two = (float_file_of(dense_model(layers.RMSNormalization, readers), (16,)) for readers in (1, 2))
    assert count(two, "MUL") == count(one, "MUL") + 1  # that of the two readers


@pytest.mark.parametrize(
    "attention",
    [
        lambda: layers.MultiHeadAttention(2, 8, name="attention"),
        lambda: layers.GroupQueryAttention(8, 4, 2, name="attention"),
    ],
    ids=["multi_head", "group_query"],
)
def test_projections_of_attention(attention):
    inputs = keras.Input((6, 16), name="x")
    x = layers.RMSNormalization()(inputs)
    model = with_random_norms(inputs, attention()(x, x))
    before = count(float_file_of(keras.Model(inputs, attention()(inputs, inputs)), (6, 16)), "MUL")
    # The square, the normalization itself, and one product for all three projections.
    assert count(float_file_of(model, (6, 16)), "MUL") == before + 3


def test_a_product_that_is_there_already_is_read():
    inputs = keras.Input((16,), name="x")
    x = layers.RMSNormalization()(inputs)
    alone = count(float_file_of(with_random_norms(inputs, layers.Dense(16)(x)), (16,)), "MUL")
    shortcut = with_random_norms(inputs, layers.Add()([x, layers.Dense(16)(x)]))
    assert count(float_file_of(shortcut, (16,)), "MUL") == alone


def test_a_constant_with_two_readers():
    inputs = keras.Input((16,), name="x")
    x = layers.Rescaling(list(range(1, 17)))(layers.ReLU()(inputs))
    float_file = float_file_of(keras.Model(inputs, [layers.Dense(4)(x), layers.Dense(4)(x)]), (16,))
    assert count(float_file, "MUL") == 1


def test_a_layer_with_two_uses_has_one_kernel():
    inputs = keras.Input((16,), name="x")
    norm, dense = layers.RMSNormalization(), layers.Dense(16, activation="relu", name="shared")
    float_file = float_file_of(with_random_norms(inputs, dense(norm(dense(norm(inputs))))), (16,))
    (kernel,) = float_file.kernels
    assert len(kernel.uses) == 2
    assert len({use.tensor for use in kernel.uses}) == 1


def test_factors_of_dead_inputs_and_zeros_among_factors():
    weight = RNG.normal(size=(5, 4, 1)).astype(np.float32)
    weight[:, 2] = 0.0
    factors = np.asarray([-2.0, 0.0, 1.0, 0.3], np.float32)
    np.testing.assert_allclose(_input_factors(weight[:, :, 0] * factors, weight), factors, rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "weight"),
    [
        (RNG.normal(size=(5, 4)), RNG.normal(size=(5, 4, 1))),
        (RNG.normal(size=(1, 4)), RNG.normal(size=(1, 4, 1))),  # any row is a multiple of any other
        (np.zeros((5, 4)), RNG.normal(size=(5, 4, 1))),
        (RNG.normal(size=(5, 4)), RNG.normal(size=(4, 5, 1))),
    ],
    ids=["other", "one_row", "zeros", "other_shape"],
)
def test_what_is_no_multiple(kernel, weight):
    assert _input_factors(kernel, weight) is None
