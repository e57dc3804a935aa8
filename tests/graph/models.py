"""Small models for the tests of the graph package, with random weights and random BatchNormalization statistics."""

import keras
import numpy as np
from keras import layers

from tfptq.graph.rebuild import input_names


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight random values; variances stay positive."""
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for weight in layer._trainable_variables + layer._non_trainable_variables:
            if not np.issubdtype(np.dtype(weight.dtype) if weight.dtype != "bfloat16" else np.float32, np.floating):
                continue
            values = random.normal(0.0, 0.5, weight.shape)
            positive = "variance" in weight.name or "gamma" in weight.name
            weight.assign(np.abs(values) + 0.5 if positive else values)
    return model


def batch_for(model: keras.Model, size: int = 3, seed: int = 1) -> dict[str, np.ndarray]:
    """Random inputs by name."""
    random = np.random.default_rng(seed)
    shapes = [(size, *tensor.shape[1:]) for tensor in model.inputs]
    arrays = [random.normal(0.0, 1.0, shape) for shape in shapes]
    arrays = [
        np.abs(100 * array).astype(tensor.dtype) if "int" in tensor.dtype else array.astype(tensor.dtype)
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]
    return dict(zip(input_names(model), arrays, strict=True))


def conv_bn(x, filters, kernel_size=3, **kwargs):
    x = layers.Conv2D(filters, kernel_size, padding="same", use_bias=False, **kwargs)(x)
    return layers.BatchNormalization()(x)


def residual_network() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU()(conv_bn(inputs, 6))
    for filters, strides in ((6, 1), (8, 2)):
        y = layers.ReLU()(conv_bn(x, filters, strides=strides))
        y = conv_bn(y, filters)
        shortcut = x if strides == 1 else conv_bn(x, filters, 1, strides=strides)
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, layers.Dense(5, name="logits")(x), name="resnet"))


def inverted_residual_network() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(6.0)(conv_bn(inputs, 4, strides=2))
    for _ in range(2):
        y = layers.ReLU(6.0)(conv_bn(x, 12, 1))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.Dropout(0.2)(y))
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        x = layers.Add()([x, conv_bn(y, 4, 1)])
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    return randomise(keras.Model(inputs, layers.Dense(5)(x), name="mobilenet"))
