"""Fifty small networks with the structures that people's networks are made of."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.survey.case import Case, MakeCase, functional, with_samples
from benchmarks.survey.sequence_structures import SEQUENCE_STRUCTURES

Build = Callable[..., Any]
IMAGE = (16, 16, 3)


def _conv(x: Any, filters: int = 8, size: int = 3, activation: Any = "relu", **options: Any) -> Any:
    return layers.Conv2D(filters, size, padding="same", activation=activation, **options)(x)


def _normed(x: Any, filters: int = 8, activation: Any = "relu", **options: Any) -> Any:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, **options)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def _residual(x: Any, scale: float = 1.0, activation: Any = "relu") -> Any:
    y = _normed(_normed(x, x.shape[-1], activation), x.shape[-1], None)
    return layers.Activation(activation)(x + scale * y)


def _squeeze_excite(x: Any, gate: str = "sigmoid") -> Any:
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)
    weights = _conv(_conv(weights, 4, 1), x.shape[-1], 1, gate)
    return x * weights


def _inverted_residual(x: Any, activation: Any = "relu6", squeeze: bool = False) -> Any:
    y = layers.Activation(activation)(layers.BatchNormalization()(_conv(x, 4 * x.shape[-1], 1, None)))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.Activation(activation)(layers.BatchNormalization()(y))
    y = _squeeze_excite(y, "hard_sigmoid") if squeeze else y
    return x + layers.BatchNormalization()(_conv(y, x.shape[-1], 1, None))


def _head(x: Any, units: int = 10, activation: Any = None) -> Any:
    return layers.Dense(units, activation=activation)(layers.GlobalAveragePooling2D()(x))


def _unet(x: Any, up: Build) -> Any:
    first = _normed(x, 8)
    second = _normed(layers.MaxPooling2D()(first), 16)
    third = _normed(layers.MaxPooling2D()(second), 24)
    second = _normed(layers.Concatenate()([second, up(third, 16)]), 16)
    first = _normed(layers.Concatenate()([first, up(second, 8)]), 8)
    return _conv(first, 3, 1, "sigmoid")


def _transposed(x: Any, filters: int) -> Any:
    return layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(x)


def _resized(x: Any, filters: int) -> Any:
    return _conv(layers.UpSampling2D(interpolation="bilinear")(x), filters)


def _shuffled(x: Any, groups: int = 2) -> Any:
    _, height, width, channels = x.shape
    x = layers.Reshape((height, width, groups, channels // groups))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))


def _dense_block(x: Any) -> Any:
    for _ in range(3):
        x = layers.Concatenate()([x, _normed(x, 4)])
    return x


def _shared(x: Any) -> Any:
    conv = layers.Conv2D(3, 3, padding="same", activation="tanh")
    return _head(conv(conv(conv(x))))


def _siamese(a: Any, b: Any) -> Any:
    tower = keras.Sequential([layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(6)], name="tower")
    first, second = tower(a), tower(b)
    return ops.sum(first * second, -1) / (ops.norm(first, axis=-1) * ops.norm(second, axis=-1) + 1e-6)


def _detector(x: Any) -> Any:
    features = _normed(_normed(x, 16, strides=2), 16, strides=2)
    boxes, scores = _conv(features, 8, 3, None), _conv(features, 6, 3, None)
    boxes = layers.Reshape((-1, 4))(boxes)
    centers, sizes = ops.sigmoid(boxes[..., :2]) * 16.0, ops.exp(boxes[..., 2:]) * 3.0
    return layers.Concatenate()([centers, sizes, ops.sigmoid(layers.Reshape((-1, 3))(scores))])


def _detector_of_corners(x: Any) -> Any:
    boxes = layers.Reshape((-1, 4))(_conv(_normed(x, 16, strides=2), 4, 1, None))
    left, size = boxes[..., :2], ops.softplus(boxes[..., 2:])
    return [ops.concatenate([left - size / 2, left + size / 2], -1), ops.max(boxes, -1)]


def _pyramid(x: Any) -> Any:
    first = _normed(x, 12, strides=2)
    second = _normed(first, 12, strides=2)
    top = _conv(second, 8, 1, None)
    merged = _conv(first, 8, 1, None) + layers.UpSampling2D()(top)
    return [_conv(merged, 5, 3, None), _conv(top, 5, 3, None)]


def _atrous(x: Any) -> Any:
    x = _normed(x)
    return _head(layers.Concatenate()([_conv(x, 4, 3, dilation_rate=rate) for rate in (1, 2, 4)]))


def _inception(x: Any) -> Any:
    pooled = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    return _head(layers.Concatenate()([_conv(x, 4, 1), _conv(_conv(x, 4, 1), 6), _conv(pooled, 4, 1)]))


def _spatial_attention(x: Any) -> Any:
    x = _conv(x, 12)
    maps = ops.concatenate([ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)], -1)
    return _head(x * _conv(maps, 1, 5, "sigmoid"))


def _non_local(x: Any) -> Any:
    x = _conv(x, 8, strides=2)
    rows = [layers.Reshape((64, 4))(_conv(x, 4, 1, None)) for _ in range(3)]
    weights = ops.softmax(ops.einsum("nic,njc->nij", rows[0], rows[1]))
    return x + _conv(layers.Reshape((8, 8, 4))(ops.einsum("nij,njc->nic", weights, rows[2])), 8, 1, None)


def _convnext(x: Any) -> Any:
    x = _conv(x, 12, 4, None, strides=4)
    y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(3, padding="same")(x))
    return x + layers.Dense(12)(layers.Dense(48, activation="gelu")(y))


def _ghost(x: Any) -> Any:
    x = _conv(x, 8)
    return _head(layers.Concatenate()([x, layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)]))


def _split(x: Any) -> Any:
    first, second = ops.split(_conv(x, 8), 2, -1)
    return _head(_shuffled(layers.Concatenate()([first, _conv(second, 4)])))


def _autoencoder(x: Any) -> Any:
    code = layers.Dense(6)(layers.Flatten()(_conv(x, 8, strides=4)))
    y = layers.Reshape((4, 4, 8))(layers.Dense(128, activation="relu")(code))
    return _transposed(_transposed(y, 8), 3)


def _two_heads(x: Any) -> Any:
    x = _normed(_normed(x, 12))
    return [_head(x, 5, "softmax"), _head(x, 1) * 100.0]


def _weight_standardized(x: Any) -> Any:
    return _head(layers.GroupNormalization(4)(_conv(layers.GroupNormalization(4)(_conv(x)))))


def _clipped(x: Any) -> Any:
    return ops.clip(_conv(_conv(x), 4, 3, None), -0.5, 0.8)


def _standardized(x: Any) -> Any:
    return layers.Normalization(mean=[0.1, 20.0, -3.0], variance=[1.0, 900.0, 0.2])(x)


def _super_resolution(x: Any) -> Any:
    y = _conv(_conv(x, 16), 12, 3, None)
    return ops.clip(ops.depth_to_space(y, 2) + layers.UpSampling2D(interpolation="bilinear")(x), 0.0, 1.0)


def _activation(name: str) -> Build:
    return lambda x: _head(_normed(_normed(_normed(x, activation=name), activation=name), activation=name))


STRUCTURES: dict[str, Build] = {
    "residual": lambda x: _head(_residual(_residual(_conv(x)))),
    "residual, small branch": lambda x: _head(_residual(_residual(_conv(x), 0.05), 0.05)),
    "residual, large branch": lambda x: _head(_residual(_residual(_conv(x), 20.0), 20.0)),
    "pre-activated residual": lambda x: _head(x + _conv(layers.ReLU()(layers.BatchNormalization()(_conv(x, 3))), 3)),
    "concatenation of ranges": lambda x: _head(layers.Concatenate()([_conv(x, 4), 30.0 * _conv(x, 4)])),
    "dense block": lambda x: _head(_dense_block(_conv(x))),
    "inception": _inception,
    "squeeze and excite": lambda x: _head(_squeeze_excite(_conv(x, 12))),
    "squeeze and excite, hard": lambda x: _head(_squeeze_excite(_conv(x, 12, 3, "hard_silu"), "hard_sigmoid")),
    "spatial attention": _spatial_attention,
    "non-local": _non_local,
    "inverted residual": lambda x: _head(_inverted_residual(_inverted_residual(_conv(x)))),
    "inverted residual, hard swish": lambda x: _head(_inverted_residual(_conv(x), "hard_silu", True)),
    "inverted residual, swish": lambda x: _head(_inverted_residual(_conv(x), "silu", False)),
    "depthwise stack": lambda x: _head(_conv(layers.DepthwiseConv2D(3)(layers.DepthwiseConv2D(3)(x)), 8, 1)),
    "depth multiplier": lambda x: _head(layers.DepthwiseConv2D(3, depth_multiplier=3, activation="relu")(x)),
    "separable": lambda x: _head(layers.SeparableConv2D(8, 3, activation="relu")(layers.SeparableConv2D(8, 3)(x))),
    "grouped": lambda x: _head(_conv(_conv(x, 8), 8, 3, groups=4)),
    "channel shuffle": lambda x: _head(_conv(_shuffled(_conv(_conv(x, 8), 8, 3, groups=2)), 8)),
    "split": _split,
    "ghost": _ghost,
    "dilated": _atrous,
    "feature pyramid": _pyramid,
    "U-Net, transposed": lambda x: _unet(x, _transposed),
    "U-Net, resized": lambda x: _unet(x, _resized),
    "super resolution": _super_resolution,
    "autoencoder": _autoencoder,
    "ConvNeXt": _convnext,
    "group normalization": _weight_standardized,
    "shared layer": _shared,
    "two heads": _two_heads,
    "detector, sigmoid and exp": _detector,
    "detector, corners": _detector_of_corners,
    "clip": _clipped,
    "logarithm of probabilities": lambda x: ops.log(_head(_conv(x), 6, "softmax") + 1e-6),
    "exponential": lambda x: ops.exp(_head(_normed(x), 6)),
    "power": lambda x: ops.power(_conv(x) + 0.01, 0.45),
    "hard negative": lambda x: ops.log_softmax(_head(_normed(x))),
    "rescaling in front": lambda x: _head(_normed(layers.Rescaling(1 / 127.5, -1.0)(127.5 * (x + 1.0)))),
    "normalization in front": lambda x: _head(
        _normed(
            layers.Normalization(mean=[0.1, 20.0, -3.0], variance=[1.0, 900.0, 0.2])(
                x * np.asarray([1.0, 30.0, 0.4], "f")
            )
        )
    ),
    "mean and variance": lambda x: ops.concatenate(ops.moments(_normed(x), (1, 2)), -1),
    "global maximum": lambda x: layers.Dense(4, activation="sigmoid")(layers.GlobalMaxPooling2D()(_normed(x))),
    "flat head": lambda x: layers.Dense(10, "softmax")(layers.Dense(16, "relu")(layers.Flatten()(_conv(x, strides=2)))),
    **{f"stack of {name}": _activation(name) for name in ("relu6", "gelu", "silu", "mish", "elu", "leaky_relu")},
    **{f"stack of {name}": _activation(name) for name in ("selu", "softplus", "tanh", "hard_tanh", "softsign")},
}


def structure_cases() -> dict[str, MakeCase]:
    """``"structures.NAME"`` -> case."""
    images = {f"structures.{name}": partial(_case, IMAGE, build, 1) for name, build in STRUCTURES.items()}
    others = {
        f"structures.{name}": partial(_case, shape, build, 1) for name, (shape, build) in SEQUENCE_STRUCTURES.items()
    }
    pairs = {"structures.siamese": partial(_case, IMAGE, _siamese, 2), "structures.embedding and dense": _embedded}
    return images | others | pairs


def _case(shape: tuple[int, ...], build: Build, inputs: int, draw: int) -> Case:
    keras.utils.set_random_seed(draw)
    return with_samples(functional([shape] * inputs, build), draw)


def _embedded(draw: int) -> Case:
    keras.utils.set_random_seed(draw)
    tokens = keras.Input((12,), dtype="int32", name="x0")
    x = layers.GlobalAveragePooling1D()(layers.Dense(16, "relu")(layers.Embedding(20, 8)(tokens)))
    return with_samples(keras.Model(tokens, layers.Dense(4, "softmax")(x)), draw)
