"""Normalizations behind the inputs of a model, and the constants that inputs are multiplied by."""

import keras
import numpy as np
import pytest
from keras import layers

from tfptq.graph import input_factors, input_statistics, model_outputs

RNG = np.random.default_rng(0)


def trained(model):
    """The model with statistics in its BatchNormalization layers, as training leaves them."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 2.0, size=layer.moving_variance.shape))
    return model


def convnet(name="bn", **fields):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name=name, **fields)(layers.Conv2D(4, 3, name="stem")(inputs))
    return keras.Model(inputs, layers.BatchNormalization(name="later")(layers.Conv2D(2, 3)(layers.ReLU()(x))))


def test_the_first_batch_norm_behind_an_input():
    model = trained(convnet())
    (found,) = input_statistics(model)
    assert (found.input, found.layer, found.axis, found.epsilon) == ("image", "bn", -1, 1e-3)
    np.testing.assert_array_equal(found.mean, np.asarray(model.get_layer("bn").moving_mean, np.float64))
    np.testing.assert_array_equal(found.variance, np.asarray(model.get_layer("bn").moving_variance, np.float64))
    images = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    (values,) = model_outputs(found.model, {"image": images})
    np.testing.assert_allclose(values, np.asarray(model.get_layer("stem")(images)), atol=1e-6)


def test_layers_that_were_never_trained_have_no_statistics():
    assert input_statistics(convnet()) == []


def test_it_is_found_inside_of_nested_models_and_behind_dropout():
    inputs = keras.Input((8, 8, 3), name="picture")
    model = trained(keras.Model(inputs, convnet()(layers.Dropout(0.5)(inputs))))
    (found,) = input_statistics(model)
    assert (found.input, found.layer) == ("picture", "bn")


@pytest.mark.parametrize("adapted", [False, True])
def test_a_normalization_of_columns(adapted):
    table = RNG.normal((1.0, 20.0), (0.1, 5.0), size=(100, 2)).astype(np.float32)
    mean, variance = table.mean(axis=0), table.var(axis=0)
    layer = layers.Normalization(name="columns", **({} if adapted else {"mean": mean, "variance": variance}))
    if adapted:
        layer.adapt(table)
    inputs = keras.Input((2,), name="table")
    (found,) = input_statistics(keras.Model(inputs, layers.Dense(1)(layer(inputs))))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-3)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-3)


def test_every_input_is_followed_to_a_layer_of_its_own():
    first, second, ids = keras.Input((4,), name="a"), keras.Input((4,), name="b"), keras.Input((3,), dtype="int32")
    x = layers.Concatenate()([layers.BatchNormalization(name="of_a")(first), layers.Dense(4)(second)])
    y = layers.Flatten()(layers.Embedding(5, 2)(ids))
    x = layers.BatchNormalization(name="of_both")(layers.Concatenate()([x, y]))
    model = trained(keras.Model([first, second, ids], x))
    assert [(found.input, found.layer) for found in input_statistics(model)] == [("a", "of_a")]


@pytest.mark.parametrize(
    ("head", "factor"),
    [
        (lambda x: layers.Rescaling(1 / 255)(x), 1 / 255),
        (lambda x: x / 127.5 - 1.0, 1 / 127.5),
        (lambda x: layers.Rescaling([2.0, 3.0, 4.0])(layers.Rescaling(10.0)(x)), 30.0),
    ],
)
def test_factors_of_inputs(head, factor):
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(2, 3)(head(inputs)))
    assert input_factors(model) == {"image": pytest.approx(factor)}


def test_inputs_that_nothing_scales_have_no_factor():
    inputs = keras.Input((8, 8, 3), name="image")
    assert input_factors(keras.Model(inputs, layers.Conv2D(2, 3)(inputs - 0.5))) == {}
