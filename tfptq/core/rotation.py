"""Rotations of the channels between layers that make the weights of these layers easier to quantize.

Where all that lies between layers is linear, the channels ``x`` between them may be mixed by any orthogonal matrix,
``x' = Q x``, without changing the function: rows of the layers that produce them become ``W' = Q W``, columns of those
that read them ``W' = W Qᵀ``. Rounding errors change: the step of a row (an output channel) follows its largest weight,
and a rotation can make all weights of a row nearly as large as each other. With ``K`` weights in a row, the noise of
rounding relative to the weights is, up to a factor that does not depend on ``Q``,

    noise  ~  sum_o K max_k W'[o, k]^2  /  sum_ok W'[o, k]^2,

which is 1 for weights of one magnitude, 3 for uniform ones, and grows with ``K`` for weights that are normally
distributed, as they are after a random rotation. The maximum is taken as a p-norm, which has a derivative:
``max_k w[k]^2 ~ (mean_k |w[k]|^p)^(2/p)`` with ``p = 8``, as in ``row_norms``. Rows count as wholes also where blocks
have scales of their own. The noise of several kernels adds up.

The noise of a producer reaches the outputs of the readers, and channels differ in how much these make of them. With
``H`` the mean over the readers of ``WᵀW / sum W^2``, row ``o`` of a producer counts ``C (Q H Qᵀ)[o, o]`` times: once in
the mean, whatever ``Q``. So a rotation that spreads the noise of large channels over small ones, on which much
depends, is seen as what it is.

The minimum over orthogonal matrices is searched by gradient descent with momentum along ``A = G Qᵀ - Q Gᵀ``, the skew
part of the gradient ``G``, each step a Cayley transform, which keeps ``Q`` orthogonal:

    Q  <-  (I + A/2)⁻¹ (I - A/2) Q.

Rotating the channels between layers is known from transformers: by random ones in QuaRot (arXiv 2404.00456), by learned
ones with Cayley steps on the loss of the network in SpinQuant (arXiv 2405.16406). The objective on weights alone, which
needs no data, and its use between convolutions, as at the narrow ends of inverted residuals, are our own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tfptq.core.products import sum_in_threads, threads_for

#: Steps of gradient descent. On MobileNetV2, three times as many gained nothing.
STEPS = 200
#: Root mean square of the entries of ``A`` in the first step; the rate decays to 0 along half a cosine.
LEARNING_RATE = 0.05
#: Share of the noise that must go for a rotation to be worth while: half a decibel. Weights as they are initialised,
#: which are of even size, gain less; those of the trained MobileNetV2 gain far more.
LEAST_GAIN = 0.1
#: Averages of the past: of the direction, for each entry, and of its size, one number for all.
_MOMENTUM, _SECOND_MOMENTUM = 0.9, 0.99


@dataclass(frozen=True, eq=False)
class RotatedKernel:
    """A kernel on one side of the channels."""

    view: np.ndarray  # weights ``[O, I, T]``
    axis: str  # ``"output"`` if it produces the channels (``C = O``), ``"input"`` if it reads them (``C = I``)
    importance: float = 1.0  # how much its noise, relative to its weights, counts; 0 for kernels that lose nothing


def learn_rotation(kernels: Sequence[RotatedKernel], size: int, seed: int = 0) -> np.ndarray:
    """Find a rotation of channels under which kernels have less noise; the identity where there is none better.

    Args:
        kernels: all that produce the channels or read them.
        size: number of channels ``C``.
        seed: of the random rotation that the search starts from.

    Returns:
        float64 ``[C, C]``, orthogonal: new channels from old ones.
    """
    sensitivity = _sensitivity(kernels, size)
    noises = [_KernelNoise(kernel, sensitivity) for kernel in kernels if kernel.importance]
    with threads_for(size):
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
        direction, power = np.zeros((size, size)), 0.0
        for step in range(STEPS):
            gradient = _noise_and_gradient(noises, rotation)[1:]
            skew = gradient @ rotation.T
            skew -= skew.T
            direction = _MOMENTUM * direction + (1.0 - _MOMENTUM) * skew
            power = _SECOND_MOMENTUM * power + (1.0 - _SECOND_MOMENTUM) * float(np.mean(skew**2))
            size_of_entries = math.sqrt(power / (1.0 - _SECOND_MOMENTUM ** (step + 1)))
            if size_of_entries == 0.0:
                break
            rate = 0.5 * LEARNING_RATE * (1.0 + math.cos(math.pi * step / STEPS))
            rotation = _cayley(rate / size_of_entries * direction) @ rotation
        start, found = (_noise_and_gradient(noises, each)[0, 0] for each in (np.eye(size), rotation))
    return rotation if found < (1.0 - LEAST_GAIN) * start else np.eye(size)


def _sensitivity(kernels: Sequence[RotatedKernel], size: int) -> np.ndarray:
    """``C H``, float32 ``[C, C]``: what the readers make of the squares and products of errors in the channels."""
    total = np.zeros((size, size))
    for kernel in kernels:
        if kernel.axis == "input":
            rows = kernel.view.transpose(0, 2, 1).reshape(-1, size).astype(np.float64)
            total += rows.T @ rows / (np.square(rows).sum() or 1.0)
    trace = np.trace(total)
    return (size * total / trace if trace else np.eye(size)).astype(np.float32)


def _noise_and_gradient(noises: Sequence["_KernelNoise"], rotation: np.ndarray) -> np.ndarray:
    """float64 ``[1 + C, C]``: the noise, in the whole first row, and below it its gradient."""
    narrow = rotation.astype(np.float32)
    return sum_in_threads((partial(noise.at, narrow) for noise in noises), len(rotation))


def _cayley(skew: np.ndarray) -> np.ndarray:
    """The rotation ``(I + A/2)⁻¹ (I - A/2)`` of a skew matrix ``A``."""
    identity = np.eye(len(skew))
    return np.linalg.solve(identity + skew / 2.0, identity - skew / 2.0)


class _KernelNoise:
    """The noise of one kernel under rotations. Its weights are kept as ``[O, T, I]``."""

    def __init__(self, kernel: RotatedKernel, sensitivity: np.ndarray):
        magnitude = float(np.sqrt(np.mean(np.square(kernel.view, dtype=np.float64)))) or 1.0
        self._weights = np.ascontiguousarray((kernel.view / magnitude).transpose(0, 2, 1), np.float32)
        self._sensitivity = sensitivity if kernel.axis == "output" else None
        self._share = kernel.importance / len(kernel.view)

    def at(self, rotation: np.ndarray) -> np.ndarray:
        """Its part of ``_noise_and_gradient``, for a float32 rotation."""
        noise, gradient = self._of_reader(rotation) if self._sensitivity is None else self._of_producer(rotation)
        return self._share * np.concatenate([np.full((1, len(rotation)), noise), gradient.astype(np.float64)])

    def _of_reader(self, rotation: np.ndarray) -> tuple[float, np.ndarray]:
        rotated = self._weights @ rotation.T
        norms, slopes = _squared_norms(rotated.reshape(len(rotated), -1))
        channels = len(rotation)
        gradient = slopes.reshape(-1, channels).T @ self._weights.reshape(-1, channels)
        return float(norms.sum(dtype=np.float64)), gradient

    def _of_producer(self, rotation: np.ndarray) -> tuple[float, np.ndarray]:
        rows = self._weights.reshape(len(rotation), -1)
        norms, slopes = _squared_norms(rotation @ rows)
        spread = rotation @ self._sensitivity
        counts = np.einsum("oc,oc->o", spread, rotation)  # diagonal of Q H Qᵀ
        gradient = counts[:, None] * (slopes @ rows.T) + 2.0 * norms[:, None] * spread
        return float(np.sum(counts * norms, dtype=np.float64)), gradient


def _squared_norms(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(mean_k |w[k]|^8)^(2/8)`` of each row, ``[O]``, and its derivative by the weights, ``[O, K]``, in float32."""
    squares = rows * rows
    sixth = squares * squares * squares
    means = np.maximum(np.mean(sixth * squares, axis=1), np.float32(1e-30))  # rows of zeros have no slope
    norms = np.sqrt(np.sqrt(means))
    return norms, (2.0 / rows.shape[1] * norms / means)[:, None] * sixth * rows
