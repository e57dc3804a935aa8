"""Small networks for tests of float activations."""

import keras
import numpy as np
from keras import layers


def encoder():
    """As a vision transformer of one block; widths are multiples of 32."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4), name="x")
    x = layers.Reshape((16, 64))(layers.Conv2D(64, 2, strides=2, name="patches")(inputs))
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 32, name="attention")(y, y)])
    y = layers.Dense(96, activation="gelu", name="up")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(64, name="down")(y)])
    return keras.Model(inputs, layers.Dense(10, name="logits")(layers.GlobalAveragePooling1D()(x)), name="encoder")


def mobile():
    """A stem, a depthwise and a pointwise convolution, a transposed one and a classifier."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), name="x")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, name="up")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)), name="mobile")


def samples(model, count=32):
    return np.random.default_rng(2).normal(0, 1, (count, *model.input_shape[1:])).astype(np.float32)
