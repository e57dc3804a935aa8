"""A small network with random weights, and samples for it."""

import keras
import numpy as np
from keras import layers

import tfptq

SAMPLES = 16


def random_images():
    """float32 ``[SAMPLES, 8, 8, 3]``."""
    return np.random.default_rng(0).normal(size=(SAMPLES, 8, 8, 3)).astype(np.float32)


def three_kernels():
    """One convolution of each kind and a dense layer, with biases, and channels of very different sizes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, layers.Dense(4, name="logits")(x), name="network")
    rng = np.random.default_rng(1)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            spread = 2.0 ** rng.integers(-6, 1, bias.shape if layer.name != "depthwise" else (*bias.shape, 1))
            layer.set_weights([kernel * spread, rng.normal(0, 0.1, bias.shape)])
    return network


def quantize(model, data, config=None, **changes):
    """Quantize quietly; ``changes`` are made to the preset or config."""
    if not isinstance(config, tfptq.QuantizationConfig):
        config = tfptq.QuantizationConfig.from_preset(config or "w8a8_shift")
    return tfptq.quantize_keras_model(model, data, config.replace(**changes), progress=False)
