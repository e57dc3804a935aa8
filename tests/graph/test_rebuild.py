"""Flat models of nested ones with custom layers, and of Sequential ones with a fixed number of samples."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfptq
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model

SHAPE = (8, 8, 3)
SAMPLES = np.random.default_rng(0).random((32, *SHAPE)).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
class Offset(layers.Layer):
    """Reads dense tensors only."""

    def build(self, shape):
        self.offset = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x, training=None, mask=None):
        return tf.nn.bias_add(x, self.offset)


@keras.saving.register_keras_serializable("tests")
class Sum(layers.Layer):
    """A list of tensors, and a number."""

    def call(self, tensors, scale=1.0):
        return tf.add_n([tf.nn.bias_add(tensor, tf.zeros(3)) * scale for tensor in tensors])


@keras.saving.register_keras_serializable("tests")
class Difference(layers.Layer):
    """Two positional arguments."""

    def call(self, a, b):
        return tf.nn.bias_add(a, tf.zeros(3)) - tf.nn.bias_add(b, tf.zeros(3))


def backbone(*custom):
    inputs = keras.Input(SHAPE)
    x = inputs
    for layer in custom:
        x = layer(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))


def of_two(layer):
    """A nested model of two inputs that are one tensor in two sizes."""
    inputs = [keras.Input(SHAPE), keras.Input(SHAPE)]
    return keras.Model(inputs, layers.Conv2D(4, 3)(layer(*inputs)))


def in_levels(x):
    inputs = keras.Input(SHAPE)
    middle = keras.Model(inputs, backbone(Offset())(inputs * 2.0 - 1.0))
    outer = keras.Input(SHAPE)
    return keras.Model(outer, middle(3.0 * outer))(x * 255.0)


def twice(x):
    shared = backbone(Offset())
    return shared(x * 255.0) + shared(x * 2.0)


def with_arguments(x):
    inputs = keras.Input(SHAPE)
    inner = keras.Model(inputs, layers.Conv2D(4, 3)(Offset()(inputs, training=False, mask=None)))
    return inner(x * 3.0, training=False)


NESTED = {
    "number": lambda x: backbone(Offset())(x * 255.0),
    "operation": lambda x: backbone(Offset())(ops.multiply(x, 255.0)),
    "array": lambda x: backbone(Offset())((x - np.float32([0.1, 0.2, 0.3])) * np.float32([2, 3, 4])),
    "sum": lambda x: backbone(Offset())(x * 2.0 + x * 3.0),
    "matmul": lambda x: backbone(Offset())(ops.matmul(x, np.eye(3, dtype=np.float32)) * 2.0),
    "levels": in_levels,
    "twice": twice,
    "sequential": lambda x: keras.Sequential([keras.Input(SHAPE), Offset(), layers.Conv2D(4, 3)])(x * 255.0),
    "arguments": with_arguments,
    "list": lambda x: of_two(lambda a, b: Sum()([a, b], scale=2.0))([x * 255.0, x * 2.0]),
    "positions": lambda x: of_two(Difference())([x * 255.0, x * 2.0]),
}


def nesting(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE, name="x")
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(NESTED[name](inputs))))


@pytest.mark.parametrize("name", NESTED)
def test_custom_layers_behind_products_with_numbers(name, tmp_path):
    model = nesting(name)
    flat = build_model(read_graph(model))
    again = build_model(read_graph(flat))
    assert [layer.name for layer in again.layers] == [layer.name for layer in flat.layers]
    flat.save(tmp_path / "flat.keras")
    expected = model.predict(SAMPLES, verbose=0)
    for found in (flat, again, keras.saving.load_model(tmp_path / "flat.keras")):
        np.testing.assert_allclose(found.predict(SAMPLES, verbose=0), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["number", "list"])
def test_they_are_quantized(name):
    result = tfptq.quantize_keras_model(nesting(name), SAMPLES, "w8a8_channel", progress=False)
    assert min(result.report.outputs.values()) > 35
    assert [layer.type for layer in result.report.layers] == ["Conv2D", "Dense"]


def test_products_that_nothing_traces_get_no_cast():
    inputs = keras.Input(SHAPE)
    flat = build_model(read_graph(keras.Model(inputs, layers.Conv2D(4, 3)(inputs * 255.0))))
    assert len(flat.operations) == 3


def stack():
    return [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)]


def called(size):
    model = keras.Sequential(stack())
    model(SAMPLES[:size])
    return model


def built(size):
    model = keras.Sequential(stack())
    model.build((size, *SHAPE))
    return model


def declared(size):
    x = inputs = keras.Input(SHAPE, batch_size=size)
    for layer in stack():
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("size", [2, 32])
@pytest.mark.parametrize("make", [called, built])
def test_sequential_models_take_any_number_of_samples(make, size):
    model = make(size)
    flat = build_model(read_graph(model))
    assert flat.input_shape == flat.output_shape[:1] + SHAPE == (None, *SHAPE)
    np.testing.assert_allclose(flat.predict(SAMPLES[:5], verbose=0), np.asarray(model(SAMPLES[:5])), atol=1e-5)


def test_a_batch_of_one_and_declared_batches_stay():
    assert build_model(read_graph(called(1))).input_shape == (1, *SHAPE)
    assert build_model(read_graph(declared(8))).input_shape == (8, *SHAPE)


def test_models_deeper_than_the_limit_of_recursion():
    x = inputs = keras.Input((2,))
    for _ in range(600):
        x = layers.ReLU()(x)
    graph, limit = read_graph(keras.Model(inputs, x)), sys.getrecursionlimit()
    sys.setrecursionlimit(500)
    try:
        assert len(build_model(graph).layers) == 601 and sys.getrecursionlimit() == 500
    finally:
        sys.setrecursionlimit(limit)
