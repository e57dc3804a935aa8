"""Networks that subtract large, nearly equal values: ``offset`` is their size, beside differences of about 1."""

import keras
import numpy as np
from keras import layers, ops


def _large(units, offset, name):
    return layers.Dense(units, bias_initializer=keras.initializers.Constant(offset), name=name)


def _ended(inputs, x):
    x = layers.Dense(16, activation="relu", name="wide")(layers.Dense(12, name="narrow")(x))
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="cancelling")


def difference_of_branches(offset):
    inputs = keras.Input((8,), name="x")
    return _ended(inputs, layers.Subtract()([_large(16, offset, "a")(inputs), _large(16, offset, "b")(inputs)]))


def mean_removal(offset):
    inputs = keras.Input((8,), name="x")
    x = _large(16, offset, "a")(inputs)
    return _ended(inputs, x - ops.mean(x, axis=-1, keepdims=True))


def normalization_by_moments(offset):
    """A variance as the mean of squares less the square of the mean, of which float32 leaves nothing at offset 1e4."""
    inputs = keras.Input((8,), name="x")
    x = _large(16, offset, "a")(inputs)
    mean = ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(x), axis=-1, keepdims=True) - ops.square(mean)
    return _ended(inputs, (x - mean) / ops.sqrt(ops.abs(variance) + 1e-3))


def sums_near_zero(offset):
    """Large values, and a layer whose weights add up to 0."""
    inputs = keras.Input((8,), name="x")
    x = layers.ReLU()(_large(16, offset, "a")(inputs))
    balance = layers.Dense(16, name="balance")
    outputs = _ended(inputs, balance(x))
    kernel = ops.convert_to_numpy(balance.kernel)
    balance.kernel.assign(kernel - kernel.mean(axis=0))
    return outputs


def difference_to_pooled(offset):
    inputs = keras.Input((6, 6, 3), name="x")
    x = layers.Conv2D(8, 3, padding="same", bias_initializer=keras.initializers.Constant(offset), name="a")(inputs)
    x = layers.ReLU()(x)
    x = layers.BatchNormalization()(x - layers.AveragePooling2D(2, 1, padding="same")(x))
    x = layers.ReLU(6.0)(layers.Conv2D(8, 3, name="b")(x))
    return _ended(inputs, layers.GlobalAveragePooling2D()(x))


CANCELLING = (difference_of_branches, mean_removal, normalization_by_moments, sums_near_zero, difference_to_pooled)


def sums_of_many_products(offset=10.0, products=4096):
    """Small differences of sums that are taken one product after the other."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input((products,), name="x")
    first = keras.layers.Dense(32)
    model = keras.Model(inputs, keras.layers.Dense(4)(first(inputs)))
    kernel = rng.normal(offset, 0.05, (products, 32)).astype(np.float32)
    x = rng.normal(offset, 0.01, (8, products)).astype(np.float32)
    first.set_weights([kernel, -(x.astype(np.float64) @ kernel).mean(axis=0).astype(np.float32)])
    return model, x
