"""Layers at the edges of a model: a chain has two, branches and heads more, shortcuts no more."""

import keras
import pytest
from graph_models import inverted_residual_network, residual_network
from keras import layers

from tfptq.graph import canonicalise, edge_layers
from tfptq.layers import supports


def edges(model):
    canonical = canonicalise(model)
    return edge_layers(canonical, [layer.name for layer in canonical.layers if supports(layer)])


def dense(name, x):
    return layers.Dense(4, name=name)(x)


def test_a_chain_has_a_first_and_a_last_layer():
    inputs = keras.Input((4,))
    x = dense("c", layers.ReLU()(dense("b", dense("a", layers.Rescaling(2.0)(inputs)))))
    assert edges(keras.Model(inputs, layers.Softmax()(x))) == ["a", "c"]
    assert edges(keras.Sequential([keras.Input((4,)), layers.Dense(2, name="only")])) == ["only"]


@pytest.mark.parametrize("network", [residual_network, inverted_residual_network])
def test_networks_with_shortcuts_have_two(network):
    model = canonicalise(network())
    names = [layer.name for layer in model.layers if supports(layer)]
    assert edge_layers(model, names) == [names[0], names[-1]]


@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_networks_of_keras_have_two(name):
    model = canonicalise(getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3)))
    names = [layer.name for layer in model.layers if supports(layer)]
    assert edge_layers(model, names) == [names[0], names[-1]]


def test_every_branch_and_every_head():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    x = layers.Concatenate()([dense("left_2", dense("left_1", left)), dense("right_1", right)])
    x = dense("trunk", x)
    model = keras.Model([left, right], [dense("head_1", x), layers.Softmax()(dense("head_2", dense("neck", x)))])
    assert sorted(edges(model)) == ["head_1", "head_2", "left_1", "right_1"]


def test_a_stream_from_input_to_output_does_not_put_each_block_at_the_edge():
    x = inputs = keras.Input((4,))
    for block in range(4):
        x = layers.Add()([x, dense(f"close_{block}", layers.ReLU()(dense(f"open_{block}", x)))])
    assert edges(keras.Model(inputs, x)) == ["open_0", "close_3"]


def test_all_layers_that_read_an_input_or_make_an_output():
    inputs = keras.Input((4,))
    query, key = dense("query", inputs), dense("key", layers.ReLU()(inputs))
    x = dense("middle", layers.Multiply()([query, key]))
    model = keras.Model(inputs, layers.Concatenate()([dense("up", x), dense("down", x)]))
    assert edges(model) == ["query", "key", "up", "down"]


def test_an_input_that_joins_late_has_the_first_layer_behind_the_joint():
    image, extra = keras.Input((4,), name="image"), keras.Input((2,), name="extra")
    x = layers.Concatenate()([dense("second", dense("first", image)), extra])
    model = keras.Model([image, extra], dense("last", dense("fourth", dense("joined", x))))
    assert edges(model) == ["first", "joined", "last"]


def test_an_output_on_the_way_has_the_layer_that_makes_it():
    inputs = keras.Input((4,))
    features = layers.ReLU()(dense("features", dense("second", dense("first", inputs))))
    assert edges(keras.Model(inputs, [features, dense("last", dense("neck", features))])) == [
        "first",
        "features",
        "last",
    ]


def test_a_shared_layer_counts_wherever_it_is_called():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    x = dense("last", dense("middle", shared(dense("first", inputs))))
    assert edges(keras.Model(inputs, [x, shared(inputs)])) == ["first", "shared", "last"]


def test_nested_models():
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, dense("inner_2", dense("inner_1", inner_input)), name="inner")
    inputs = keras.Input((4,))
    assert edges(keras.Model(inputs, dense("last", inner(inputs)))) == ["inner_1", "last"]


def test_an_output_that_no_layer_makes():
    inputs = keras.Input((4,))
    assert edges(keras.Model(inputs, [layers.ReLU()(inputs), dense("b", dense("a", inputs))])) == ["a", "b"]
