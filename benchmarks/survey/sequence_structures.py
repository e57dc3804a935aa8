"""Structures on sequences, vectors and volumes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers, ops

SEQUENCE, VECTOR, SOUND, VOLUME = (24, 8), (16,), (1024,), (8, 8, 8, 2)


def _encoder(x: Any, activation: str = "gelu", first: bool = True, causal: bool = False) -> Any:
    """A block of a transformer, with its normalizations first or last."""
    width = x.shape[-1]
    y = layers.LayerNormalization()(x) if first else x
    x = x + layers.MultiHeadAttention(2, width // 2)(y, y, use_causal_mask=causal)
    x = x if first else layers.LayerNormalization()(x)
    y = layers.LayerNormalization()(x) if first else x
    x = x + layers.Dense(width)(layers.Dense(4 * width, activation=activation)(y))
    return x if first else layers.LayerNormalization()(x)


def _gated(x: Any) -> Any:
    """A gated MLP behind an RMS normalization, as in language models."""
    y = layers.RMSNormalization()(x)
    return x + layers.Dense(x.shape[-1])(layers.Dense(32, activation="silu")(y) * layers.Dense(32)(y))


def _mlp(activation: str) -> Callable[[Any], Any]:
    return lambda x: layers.Dense(8)(
        layers.Dense(32, activation=activation)(layers.Dense(32, activation=activation)(x))
    )


def _mixer(x: Any) -> Any:
    y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
    x = x + layers.Permute((2, 1))(layers.Dense(24)(layers.Dense(48, activation="gelu")(y)))
    return x + layers.Dense(8)(layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x)))


def _wavenet(x: Any) -> Any:
    total = 0.0
    for rate in (1, 2, 4):
        wave = layers.Conv1D(8, 2, padding="causal", dilation_rate=rate, activation="tanh")(x)
        gate = layers.Conv1D(8, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(x)
        y = layers.Conv1D(8, 1)(wave * gate)
        x, total = x + y, total + y
    return layers.Conv1D(5, 1)(layers.ReLU()(total))


def _keyword(x: Any) -> Any:
    """Logarithms of power in bands in front of a convolution."""
    x = layers.MelSpectrogram(fft_length=128, sequence_stride=64, num_mel_bins=16, sampling_rate=8000)(x)
    x = layers.Permute((2, 1))(layers.Reshape((16, 17))(x))  # the file must know its length
    return _pooled(layers.Conv1D(12, 3, activation="relu")(x))


def _pooled(x: Any) -> Any:
    return layers.Dense(6)(layers.GlobalAveragePooling1D()(x))


def _positions(x: Any) -> Any:
    table = np.sin(np.arange(24)[:, None] / 3.0 ** np.arange(8)).astype(np.float32)
    return _pooled(_encoder(layers.Dense(8)(x) + table))


def _standardized(x: Any) -> Any:
    mean, variance = ops.moments(x, (1,), keepdims=True)
    return _pooled(layers.Conv1D(8, 3, activation="relu")((x - mean) / ops.sqrt(variance + 1e-5)))


def _regression(x: Any) -> Any:
    mean, deviation = layers.Dense(3)(x), layers.Dense(3, activation="softplus")(x)
    return [mean, deviation]


def _between(function: Callable[[Any], Any], offset: float | None = None) -> Callable[[Any], Any]:
    """A function between two kernels, of positive values if there is an offset."""

    def build(x: Any) -> Any:
        y = layers.Dense(16, activation=None if offset is None else "relu")(x)
        return layers.Dense(4)(function(y if offset is None else y + offset))

    return build


def _gated_by(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: layers.Dense(4)(layers.Dense(16)(x) * function(layers.Dense(16)(x)))


#: Functions that LiteRT has int8 kernels for, as lookup tables, or that are made of such.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp between kernels": _between(ops.exp),
    "exp as a gate": _gated_by(ops.exp),
    "log between kernels": _between(ops.log, 0.5),
    "sqrt between kernels": _between(ops.sqrt, 0.1),
    "rsqrt between kernels": _between(ops.rsqrt, 0.5),
    "softplus between kernels": _between(ops.softplus),
}

#: Name -> shape of the input, and what is built on it.
SEQUENCE_STRUCTURES: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "encoder, normalization first": (SEQUENCE, lambda x: _encoder(_encoder(layers.Dense(16)(x)))),
    "encoder, normalization last": (SEQUENCE, lambda x: _encoder(layers.Dense(16)(x), "relu", first=False)),
    "decoder": (SEQUENCE, lambda x: _gated(_encoder(layers.Dense(16)(x), "silu", causal=True))),
    "encoder with positions": (SEQUENCE, _positions),
    "mixer": (SEQUENCE, _mixer),
    "1D convolutions": (SEQUENCE, lambda x: _pooled(layers.Conv1D(8, 5, 2, activation="relu")(layers.Conv1D(8, 3)(x)))),
    "gated dilated convolutions": (SEQUENCE, _wavenet),
    "separable 1D": (SEQUENCE, lambda x: _pooled(layers.SeparableConv1D(12, 5, activation="relu")(x))),
    "1D, transposed": (SEQUENCE, lambda x: layers.Conv1DTranspose(4, 3, 2)(layers.Conv1D(8, 3, activation="relu")(x))),
    "standardized sequence": (SEQUENCE, _standardized),
    "spectrogram": (SOUND, _keyword),
    "3D convolutions": (VOLUME, lambda x: layers.Dense(4)(layers.Flatten()(layers.Conv3D(6, 3, activation="relu")(x)))),
    "mean and deviation": (VECTOR, lambda x: _regression(layers.Dense(16, activation="relu")(x))),
    **{f"MLP, {name}": (VECTOR, _mlp(name)) for name in ("relu", "gelu", "silu", "mish", "tanh", "sigmoid", "selu")},
    **{name: (VECTOR, build) for name, build in FUNCTIONS.items()},
}
