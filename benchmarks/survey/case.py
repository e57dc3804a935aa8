"""What the survey quantizes: networks with weights like trained ones, samples to calibrate on and others to judge by.

A case is a function of the number of a draw, so that a list of hundreds costs nothing until one of them is measured.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

#: Samples to calibrate on, and to judge by.
CALIBRATION, HELD_OUT = 128, 64


@dataclass(frozen=True, eq=False)
class Case:
    """A network and its samples.

    Attributes:
        model: the float network.
        calibration: input -> ``[N, ...]``.
        held_out: the same, of samples that calibration does not see.
    """

    model: keras.Model
    calibration: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]


#: Number of a draw of weights and samples -> case.
MakeCase = Callable[[int], Case]


def with_samples(
    model: keras.Model, draw: int, samples: dict[str, np.ndarray] | None = None, calibration: int = CALIBRATION
) -> Case:
    """A case of a network whose weights become like trained ones.

    Args:
        model: network with initial weights, which change.
        draw: number of the draw of weights and samples.
        samples: input -> ``[N, ...]``; made up where they are None.
        calibration: how many of them are to calibrate on.
    """
    if samples is None:
        samples = {tensor.name: values_for(tensor, 100 * draw + at) for at, tensor in enumerate(model.inputs)}
    case = Case(
        model,
        {name: values[:calibration] for name, values in samples.items()},
        {name: values[calibration:] for name, values in samples.items()},
    )
    make_like_trained(model, draw)
    set_statistics(model, case.calibration)
    return case


def values_for(tensor: keras.KerasTensor, seed: int) -> np.ndarray:
    """Samples for an input: a few features of different size and mean, and samples of different contrast."""
    rng, (_, *shape) = np.random.default_rng(seed), tensor.shape
    count = CALIBRATION + HELD_OUT
    if tensor.dtype in ("int32", "int64", "uint8"):
        return rng.integers(0, 20, (count, *shape)).astype(tensor.dtype)
    contrast = rng.uniform(0.6, 1.4, (count, *[1] * len(shape)))
    size, mean = rng.lognormal(0.0, 0.4, shape[-1:]), rng.normal(0.0, 0.3, shape[-1:])
    return (contrast * rng.normal(0.0, 1.0, (count, *shape)) * size + mean).astype(np.float32)


def make_like_trained(model: keras.Model, draw: int) -> None:
    """Give channels of kernels different sizes, biases values, normalizations gains and offsets."""
    rng = np.random.default_rng(1 + draw)
    for weight in model.weights:
        values, kind = np.asarray(weight), weight.path.split("/")[-1]
        if "kernel" in kind and values.ndim > 1:
            weight.assign(_smooth(values) * rng.lognormal(0.0, 0.4, values.shape[-1:]))
        elif "bias" in kind:
            weight.assign(rng.normal(0.0, 0.2, values.shape))
        elif kind in ("gamma", "scale"):
            weight.assign(rng.uniform(0.5, 1.5, values.shape))
        elif kind == "beta":
            weight.assign(rng.normal(0.0, 0.3, values.shape))
        elif kind == "alpha":
            weight.assign(rng.uniform(0.05, 0.3, values.shape))


def _smooth(kernel: np.ndarray) -> np.ndarray:
    """The taps of a window are alike in trained kernels; what has high frequencies only would amplify all noise."""
    window = tuple(range(kernel.ndim - 2))
    return 0.5 * kernel + kernel.mean(window, keepdims=True) * 0.5 * np.prod(kernel.shape[:-2]) ** 0.5


def set_statistics(model: keras.Model, samples: dict[str, np.ndarray]) -> None:
    """Give each BatchNormalization the statistics of samples, without which the values of a deep network vanish."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    if layers:
        model(next(batches(samples, model, CALIBRATION)), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def batches(samples: dict[str, np.ndarray], model: keras.Model, size: int = 1) -> Iterator[Any]:
    """What the network takes, some samples at a time."""
    for at in range(0, len(next(iter(samples.values()))), size):
        feeds = [samples[tensor.name][at : at + size] for tensor in model.inputs]
        yield feeds if len(feeds) > 1 else feeds[0]


def stem(inputs: keras.KerasTensor, channels: int = 4) -> keras.KerasTensor:
    """A kernel in front of what is tried, so that it reads values of a kernel and not of the input."""
    layers = keras.layers
    rank = len(inputs.shape)
    if rank == 2:
        return layers.Dense(2 * channels)(inputs)
    if rank == 3:
        return layers.Conv1D(channels, 3, padding="same")(inputs)
    if rank == 4:
        return layers.Conv2D(channels, 3, padding="same")(inputs)
    return inputs


def functional(shapes: Sequence[tuple[int, ...]], build: Callable) -> keras.Model:
    """A network of ``build(*inputs)`` for inputs of some shapes."""
    inputs = [keras.Input(shape, name=f"x{at}") for at, shape in enumerate(shapes)]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], build(*inputs))
