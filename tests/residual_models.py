"""Small networks with residual sums, and random weights for them."""

import keras
import numpy as np
from keras import layers

from tfptq.layers import supports, weight_specs

SHAPE = (8, 8, 3)


def with_random_weights(model, seed=0):
    """Weights whose channels have magnitudes of all sizes, so that an order matters."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if not supports(layer):
            continue
        (spec,) = weight_specs(layer)
        outputs, inputs, taps = spec.view.view_shape
        view = random.normal(size=(outputs, inputs, taps)) / np.sqrt(inputs * taps)
        view *= np.exp(random.normal(size=(outputs, 1, 1))) * np.exp(random.normal(size=(1, inputs, 1)))
        spec.variable.assign(spec.view.from_view(view))
        spec.bias.assign(0.1 * random.normal(size=spec.bias.shape))
    return model


def residual():
    inputs = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add()([layers.Conv2D(8, 3, padding="same", name="branch")(y), x])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x), name="residual")


def inverted_residual():
    inputs = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu6", name="stem")(inputs)
    y = layers.Conv2D(18, 1, activation="relu6", name="expand")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(y)
    x = layers.Add()([layers.Conv2D(6, 1, name="project")(y), x])
    return keras.Model(inputs, layers.Dense(5, name="logits")(layers.Flatten()(x)), name="inverted_residual")
