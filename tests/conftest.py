"""Shared data and small trained models; each is made once in a test run.

Keras is imported inside the fixtures, so that tests of pure numpy code do not wait for TensorFlow.
"""

import os
import sys
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("tfptq", deadline=None)
settings.load_profile("tfptq")


@pytest.fixture(autouse=True)
def same_random_weights():
    """Layers without a seed of their own start from the same weights in every run of a test."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


class Digits(NamedTuple):
    """The 8 by 8 handwritten digits of scikit-learn, pixels in 0..1."""

    x_train: np.ndarray  # float32 [1400, 8, 8, 1]
    y_train: np.ndarray  # int64 [1400]
    x_test: np.ndarray  # float32 [397, 8, 8, 1]
    y_test: np.ndarray  # int64 [397]


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order] / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels[order]
    return Digits(images[:1400], labels[:1400], images[1400:], labels[1400:])


@pytest.fixture(scope="session")
def digits_convnet(digits):
    """A trained network of the MobileNet kind: BatchNorm, ReLU6, depthwise convolutions, a residual sum."""
    import keras

    def normalized(x):
        return keras.layers.BatchNormalization(momentum=0.9)(x)

    def block(x, filters, stride=1):
        y = keras.layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        y = keras.layers.ReLU(6.0)(normalized(y))
        y = keras.layers.Conv2D(filters, 1, use_bias=False)(y)
        return normalized(y)

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = keras.layers.ReLU(6.0)(normalized(x))
    x = block(x, 24, stride=2)
    x = keras.layers.Add()([x, block(x, 24)])
    x = keras.layers.ReLU(6.0)(block(x, 32))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(10, name="logits")(x)
    return _trained(keras.Model(inputs, outputs, name="digits_convnet"), digits, epochs=12)


@pytest.fixture(scope="session")
def digits_dense(digits):
    """A trained Sequential network of dense layers, softmax at the end."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="digits_dense",
    )
    return _trained(model, digits, epochs=20)


def _trained(model, digits: Digits, epochs: int):
    import keras

    last = model.layers[-1].activation
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=last is keras.activations.linear)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(digits.x_train, digits.y_train, batch_size=64, epochs=epochs, verbose=0)
    return model
