"""Small models for the tests of the graph package, with random weights and random BatchNormalization statistics."""

import keras
import numpy as np
from keras import layers

from tfptq.graph.read_graph import input_names


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


def random_network(blocks: list[str], width: int, seed: int) -> keras.Model:
    """A convolutional network out of named blocks, each of which keeps height and width."""
    inputs = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    for block in blocks:
        x = _BLOCKS[block](x)
    head, tail = blocks[0], blocks[-1]
    x = layers.Flatten()(x) if len(head) < len(tail) else layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Reshape((-1,))(x)
    x = layers.Dense(6, activation="relu6")(x)
    return randomise(keras.Model(inputs, layers.Dense(3)(x), name="random"), seed)


def _residual(x):
    y = layers.Conv2D(5, 3, padding="same")(x)
    y = layers.Conv2D(x.shape[-1], 1)(layers.PReLU(shared_axes=[1, 2])(y))
    return layers.ReLU()(layers.Add()([x, y]))


def _inverted(x):
    y = layers.ReLU(6.0)(layers.Conv2D(2 * x.shape[-1], 1)(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(y)
    return keras.ops.add(layers.Conv2D(x.shape[-1], 1)(y), x)


def _squeeze_excite(x):
    channels = x.shape[-1]
    gate = layers.Reshape((1, 1, channels))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(channels, 1, activation="hard_sigmoid")(layers.Conv2D(2, 1, activation="relu")(gate))
    return layers.Multiply()([x, gate])


def _dense_gate(x):
    gate = layers.Dense(x.shape[-1], activation="sigmoid")(keras.ops.mean(x, axis=[1, 2], keepdims=True))
    return x * gate + 0.5


def _concat(x):
    y = layers.Conv2D(3, 3, padding="same")(layers.MaxPooling2D(2, 1, padding="same")(x))
    return layers.LeakyReLU()(layers.Concatenate()([y, x, layers.AveragePooling2D(3, 1, padding="same")(y)]))


def _norm(x):
    return layers.BatchNormalization()(layers.ReLU()(x))


def _transposed(x):
    y = layers.Conv2DTranspose(4, 2, strides=2, activation="silu")(x)
    return layers.Cropping2D(1)(layers.ZeroPadding2D(1)(layers.MaxPooling2D(2)(y)))


def _grouped(x):
    y = layers.Conv2D(2 * x.shape[-1], 1)(x)
    return layers.Conv2D(4, 3, padding="same", groups=2)(y)


def _barrier(x):
    return layers.LayerNormalization()(x[:, ::-1])


def _multiplier(x):
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)


def _shared(x):
    layer = layers.Conv2D(x.shape[-1], 3, padding="same")
    return layers.Maximum()([layer(layers.ReLU()(layer(x))), x])


_BLOCKS = {
    "residual": _residual,
    "inverted": _inverted,
    "squeeze_excite": _squeeze_excite,
    "dense_gate": _dense_gate,
    "concat": _concat,
    "norm": _norm,
    "transposed": _transposed,
    "grouped": _grouped,
    "barrier": _barrier,
    "multiplier": _multiplier,
    "shared": _shared,
}
BLOCK_NAMES = sorted(_BLOCKS)
