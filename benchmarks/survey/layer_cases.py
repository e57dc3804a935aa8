"""A small network for every class of ``keras.layers``: a kernel, the layer, and nothing else."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.survey.case import CALIBRATION, HELD_OUT, Case, MakeCase, functional, stem, with_samples

VECTOR, SEQUENCE, IMAGE, VOLUME = (12,), (16, 6), (16, 16, 3), (8, 8, 8, 2)
#: Base classes, cells, wrappers of other frameworks, and layers that make samples for training or read text.
LEFT_OUT = {
    *("InputLayer", "InputSpec", "Layer", "Wrapper", "RNN", "Pipeline", "Lambda"),
    *("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"),
    *("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"),
    *("HashedCrossing", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization"),
    *("AugMix", "CutMix", "MaxNumBoundingBoxes", "MixUp", "RandAugment"),
}
#: Class -> its arguments, where it needs some or others say more.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "silu"},
    **{f"Adaptive{kind}Pooling{rank}D": {"output_size": 4} for kind in ("Average", "Max") for rank in (1, 2, 3)},
    "CategoryEncoding": {"num_tokens": 20, "output_mode": "multi_hot"},
    "CenterCrop": {"height": 8, "width": 8},
    **{
        f"{name}{rank}D{transposed}": {"filters": 6, "kernel_size": 3}
        for name in ("Conv", "Convolution", "SeparableConv", "SeparableConvolution")
        for rank in (1, 2, 3)
        for transposed in ("", "Transpose")
    },
    **{f"ConvLSTM{rank}D": {"filters": 3, "kernel_size": 3} for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": {"kernel_size": 3} for rank in (1, 2)},
    "Dense": {"units": 10},
    "Discretization": {"bin_boundaries": [-1.0, 0.0, 1.0]},
    "Dot": {"axes": -1},
    "EinsumDense": {"equation": "abc,cd->abd", "output_shape": (None, 8)},
    "Embedding": {"input_dim": 20, "output_dim": 8},
    **{f"{kind}{name}Dropout": {"rate": 0.2} for kind, name in (("", ""), ("Alpha", ""), ("Gaussian", ""))},
    **{f"SpatialDropout{rank}D": {"rate": 0.2} for rank in (1, 2, 3)},
    **{f"{kind}Pooling{rank}D": {"pool_size": 2} for kind in ("Average", "Max") for rank in (1, 2, 3)},
    "GaussianNoise": {"stddev": 0.1},
    "GRU": {"units": 5},
    "GroupNormalization": {"groups": 2},
    "GroupQueryAttention": {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2},
    "LSTM": {"units": 5},
    "MelSpectrogram": {"fft_length": 64, "sequence_stride": 32, "num_mel_bins": 8, "sampling_rate": 1000},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 4},
    "Permute": {"dims": (2, 1)},
    "RandomCrop": {"height": 8, "width": 8},
    "RepeatVector": {"n": 4},
    "Rescaling": {"scale": 0.5, "offset": -0.2},
    "Reshape": {"target_shape": (-1,)},
    "Resizing": {"height": 24, "width": 24},
    "ReversibleEmbedding": {"input_dim": 20, "output_dim": 8},
    "STFTSpectrogram": {"fft_length": 64, "frame_length": 64, "frame_step": 32, "mode": "magnitude"},
    "SimpleRNN": {"units": 5},
    "Solarization": {"value_range": (0, 1)},
    **{
        f"Random{name}": {"factor": 0.2}
        for name in (
            "Brightness",
            "ColorDegeneration",
            "Contrast",
            "Hue",
            "Invert",
            "Rotation",
            "Saturation",
            "Sharpness",
        )
    },
    "RandomPosterization": {"factor": 4},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
}
_AROUND: dict[str, Callable[[], keras.layers.Layer]] = {
    "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(4)),
    "SpectralNormalization": lambda: layers.SpectralNormalization(layers.Conv2D(6, 3)),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(8)),
    "Normalization": lambda: layers.Normalization(mean=[0.3, -0.2, 1.0], variance=[2.0, 0.5, 1.0]),
}
#: Class -> shape of its input, where the name does not tell it.
SHAPES = {
    **{f"{kind}Attention": SEQUENCE for kind in ("", "Additive", "MultiHead", "GroupQuery")},
    **dict.fromkeys(("Bidirectional", "LSTM", "GRU", "SimpleRNN", "EinsumDense"), SEQUENCE),
    **dict.fromkeys(("TimeDistributed", "Masking", "Permute"), SEQUENCE),
    "ConvLSTM1D": (3, 8, 2), "ConvLSTM2D": (3, 8, 8, 2), "ConvLSTM3D": (2, 4, 4, 4, 2),
    "MelSpectrogram": (512,), "STFTSpectrogram": (512, 1), "Embedding": (8,), "ReversibleEmbedding": (8,),
    "CategoryEncoding": (8,), "Dense": VECTOR, "Dot": VECTOR, "RepeatVector": VECTOR, "UnitNormalization": VECTOR,
    "Discretization": VECTOR,
}  # fmt: skip
_MERGES = {"Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"}
_OF_TOKENS = {"Embedding", "ReversibleEmbedding", "CategoryEncoding"}
#: Layers that read pictures from 0 to 1.
IMAGES = {name for name in vars(layers) if name.startswith("Random") or "Equalization" in name}
IMAGES |= {"AutoContrast", "Solarization"}
#: What stands at the input of a network.
_IN_FRONT = {"MelSpectrogram", "STFTSpectrogram", "Normalization", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}


def layer_cases() -> dict[str, MakeCase]:
    """``"layers.NAME"`` -> case, for each class once, whatever names it has."""
    found: dict[str, MakeCase] = {}
    seen = set()
    for name, kind in sorted(vars(layers).items()):
        if inspect.isclass(kind) and kind not in seen and name not in LEFT_OUT:
            seen.add(kind)
            found[f"layers.{name}"] = partial(_case, name)
    return found


def _case(name: str, draw: int) -> Case:
    keras.utils.set_random_seed(draw)
    shape = _shape(name)
    if name in _OF_TOKENS:
        tokens = keras.Input(shape, dtype="int32", name="x0")
        return with_samples(keras.Model(tokens, stem(_layer(name)(tokens))), draw)
    if name in _MERGES:
        model = functional([shape, shape], lambda a, b: _layer(name)([stem(a), 3.0 * stem(b)]))
    elif "Attention" in name:
        calls = {"query", "value"} <= set(inspect.signature(getattr(layers, name).call).parameters)
        model = functional([shape], lambda x: _attend(_layer(name), stem(x, 8), calls))
    else:
        model = functional([shape], lambda x: _layer(name)(x if name in _IN_FRONT or name in IMAGES else stem(x)))
    samples = None
    if name in IMAGES:
        samples = {"x0": np.random.default_rng(draw).random((CALIBRATION + HELD_OUT, *shape)).astype(np.float32)}
    return with_samples(model, draw, samples)


def _attend(layer: keras.layers.Layer, x: keras.KerasTensor, separate: bool) -> keras.KerasTensor:
    return layer(x, x) if separate else layer([x, x])


def _layer(name: str) -> keras.layers.Layer:
    if name in _AROUND:
        return _AROUND[name]()
    return getattr(layers, name)(**ARGUMENTS.get(name, {}))


def _shape(name: str) -> tuple[int, ...]:
    if name in SHAPES:
        return SHAPES[name]
    for rank, shape in (("1D", SEQUENCE), ("2D", IMAGE), ("3D", VOLUME)):
        if rank in name:
            return shape
    return IMAGE
