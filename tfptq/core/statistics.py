"""Sufficient statistics of one linear layer: all that rounding, scales and bias need to know of the data.

A layer computes ``z = W x + b`` at every position (a dense row, a pixel of a convolution). ``x̂`` is what the layer
reads in the quantized network, ``z`` what the float network computes there. The error of quantized weights ``Ŵ``,
with the best bias for them, is a quadratic that five sums determine::

    E|z - Ŵx̂ - b|² = tr(Ŵ A Ŵᵀ) - 2 tr(Ŵ Cᵀ) + E|z - E z|²,     b = E z - Ŵ E x̂
    A = E x̂x̂ᵀ - E x̂ E x̂ᵀ,   C = E z x̂ᵀ - E z E x̂ᵀ

Sums add up, so statistics of shards of the data merge with ``a + b``, and a fitting step costs the same for 64
samples and for 64,000.

**Groups.** Every layer is a grouped one: ``G`` groups, each with ``K`` inputs and ``P`` outputs. Dense layers and
ordinary convolutions have ``G = 1``; a depthwise convolution has a group per channel with ``K`` = taps and ``P`` =
depth multiplier. A canonical view ``W[O, I, T]`` is reshaped to ``[G, P, K]``: ``O = G*P``, ``K = I*T`` with ``I``
outermost.

**Cost.** One position costs ``K*(K+P)*G`` multiplications. Neighbouring positions tell nearly the same, so
``position_step`` keeps a regular sample of them when there are many more than weights to determine.

Source: the quadratic is the layer objective of Optimal Brain Surgeon and its heirs (GPTQ, arXiv 2210.17323), with
the float output as the target.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfptq.core.decibels import decibels
from tfptq.core.products import product
from tfptq.core.windows import Window, tap_indices

#: Positions of the whole data set kept at least, and kept for each input of a group.
FEWEST_POSITIONS = 16384
POSITIONS_PER_INPUT = 64
#: Float32 numbers that one block of patches may hold, and positions in it at least, however wide the layer is.
BLOCK_SIZE, SHORTEST_BLOCK = 1 << 22, 256
#: Numbers below this are scaled before they are squared in float32, which would leave little or nothing of them.
SMALL = 2.0**-40
#: Share of the mean in the second moment of numbers from which on they are taken relative to their mean.
_NEARLY_CONSTANT = 0.9


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Sums over positions, float64. ``a + b`` are the statistics of both data sets."""

    count: float  # number of positions, each as often as it counts
    sum_x: np.ndarray  # ``[G, K]``, sum of x̂
    sum_z: np.ndarray  # ``[G, P]``, sum of z
    sum_zz: np.ndarray  # ``[G, P]``, sum of z²
    gram: np.ndarray  # ``[G, K, K]``, sum of x̂x̂ᵀ
    cross: np.ndarray  # ``[G, P, K]``, sum of z x̂ᵀ

    def __add__(self, other: "LayerStatistics") -> "LayerStatistics":
        if self.cross.shape != other.cross.shape:
            raise ValueError(f"statistics of different layers: {self.cross.shape} and {other.cross.shape} [G, P, K]")
        return LayerStatistics(
            self.count + other.count,
            self.sum_x + other.sum_x,
            self.sum_z + other.sum_z,
            self.sum_zz + other.sum_zz,
            self.gram + other.gram,
            self.cross + other.cross,
        )

    def weighted(self, weight: float) -> "LayerStatistics":
        """The same positions, each counting ``weight`` times."""
        return LayerStatistics(*(weight * getattr(self, field.name) for field in dataclasses.fields(self)))

    def scaled(self, exponent_x: int, exponent_z: int) -> "LayerStatistics":
        """The statistics of ``2**exponent_x * x̂`` and ``2**exponent_z * z``."""
        return LayerStatistics(
            self.count,
            np.ldexp(self.sum_x, exponent_x),
            np.ldexp(self.sum_z, exponent_z),
            np.ldexp(self.sum_zz, 2 * exponent_z),
            np.ldexp(self.gram, 2 * exponent_x),
            np.ldexp(self.cross, exponent_x + exponent_z),
        )

    def moved(self, by_x: np.ndarray, by_z: np.ndarray) -> "LayerStatistics":
        """The statistics of ``x̂ + by_x`` and ``z + by_z``, for constants ``[G, K]`` and ``[G, P]``."""
        by_x, by_z = by_x.astype(np.float64), by_z.astype(np.float64)
        sum_x, sum_z = self.sum_x + self.count * by_x, self.sum_z + self.count * by_z
        return LayerStatistics(
            self.count,
            sum_x,
            sum_z,
            self.sum_zz + by_z * (self.sum_z + sum_z),
            self.gram + self.sum_x[:, :, None] * by_x[:, None, :] + by_x[:, :, None] * sum_x[:, None, :],
            self.cross + self.sum_z[:, :, None] * by_x[:, None, :] + by_z[:, :, None] * sum_x[:, None, :],
        )

    def centred(self) -> "CentredStatistics":
        """Means and covariances; refused where no position was seen, or one that was not finite."""
        if self.count == 0:
            raise ValueError("layer statistics hold no positions; pass at least one sample")
        if not (np.isfinite(self.gram).all() and np.isfinite(self.cross).all()):
            raise ValueError(
                "layer statistics are not finite: the data or the weights hold NaN or infinity, or inputs and outputs "
                "so large that float32 cannot hold their squares"
            )
        mean_x, mean_z = self.sum_x / self.count, self.sum_z / self.count
        gram = self.gram / self.count - mean_x[:, :, None] * mean_x[:, None, :]
        cross = self.cross / self.count - mean_z[:, :, None] * mean_x[:, None, :]
        variance = np.maximum(self.sum_zz / self.count - mean_z**2, 0.0)
        return CentredStatistics(gram, cross, mean_x, mean_z, variance)


@dataclass(frozen=True, eq=False)
class CentredStatistics:
    """Means and covariances of a layer, float64."""

    gram: np.ndarray  # A, ``[G, K, K]``
    cross: np.ndarray  # C, ``[G, P, K]``
    mean_x: np.ndarray  # ``[G, K]``
    mean_z: np.ndarray  # ``[G, P]``
    variance_z: np.ndarray  # ``[G, P]``

    def group_view(self, view: np.ndarray) -> np.ndarray:
        """Reshape a canonical view ``[O, I, T]`` to ``[G, P, K]``."""
        groups, outputs, inputs = self.cross.shape
        if view.ndim != 3 or view.shape[0] != groups * outputs or view.shape[1] * view.shape[2] != inputs:
            raise ValueError(
                f"weight view {view.shape} [O, I, T] does not fit statistics of {groups} groups with "
                f"{outputs} outputs and {inputs} inputs each"
            )
        return view.reshape(groups, outputs, inputs)

    def damped(self, view: np.ndarray, damping: float) -> "CentredStatistics":
        """The same with a pull towards float weights ``[O, I, T]``: few samples are not fitted to their noise.

        Its strength is in units of the mean input power of each group.
        """
        power = damping * np.diagonal(self.gram, axis1=1, axis2=2).mean(axis=1)[:, None, None]  # [G, 1, 1]
        gram = self.gram + power * np.eye(self.gram.shape[1])
        return dataclasses.replace(self, gram=gram, cross=self.cross + power * self.group_view(view))

    def output_error(self, view: np.ndarray) -> np.ndarray:
        """Mean squared error ``[O]`` of each output channel with weights ``[O, I, T]`` and the best bias."""
        weight = self.group_view(np.asarray(view, np.float64))
        quadratic = np.sum((weight @ self.gram - 2.0 * self.cross) * weight, axis=2)
        return np.maximum(quadratic + self.variance_z, 0.0).reshape(-1)

    def output_snr(self, view: np.ndarray) -> float:
        """Signal-to-noise ratio of the output in dB with weights ``[O, I, T]`` and the best bias."""
        return decibels(self.variance_z.sum(), self.output_error(view).sum())

    def best_bias(self, view: np.ndarray) -> np.ndarray:
        """Bias ``E z - Ŵ E x̂``, float32 ``[O]``, that makes the mean output exact."""
        weight = self.group_view(np.asarray(view, np.float64))
        return (self.mean_z - np.einsum("gpk,gk->gp", weight, self.mean_x)).reshape(-1).astype(np.float32)


def position_step(positions: int, samples: int, inputs: int) -> int:
    """Every how many positions one is worth its cost.

    A step ``>= 1`` that keeps ``FEWEST_POSITIONS + POSITIONS_PER_INPUT * K`` positions or more of all samples where
    there are so many, and is prime to ``positions``, so that it does not fall on the same pixels of every sample.

    Args:
        positions: output positions of one sample.
        samples: samples of the whole data set.
        inputs: inputs of one group, ``K``.
    """
    wanted = FEWEST_POSITIONS + POSITIONS_PER_INPUT * inputs
    step = max(1, positions * samples // wanted)
    while math.gcd(step, positions) > 1:
        step -= 1
    return step


def dense_statistics(x: np.ndarray, z: np.ndarray, step: int = 1, first_position: int = 0) -> LayerStatistics:
    """Statistics of a dense layer.

    Args:
        x: inputs ``[..., I]``, float32.
        z: float outputs ``[..., O]``.
        step: keep the positions whose number in the whole data set is a multiple of it.
        first_position: number of the first position here, so that shards keep what one pass would.
    """
    x = np.asarray(x, np.float32).reshape(-1, x.shape[-1])
    z = np.asarray(z, np.float32).reshape(-1, z.shape[-1])
    _check_rows(len(x), len(z))
    if step > 1:
        kept = slice(-first_position % step, None, step)
        x, z = x[kept].copy(), z[kept].copy()
    (x, exponent_x), (z, exponent_z) = _with_squares(x), _with_squares(z)
    total, origin, target = _zeros(1, z.shape[1], x.shape[1]), _origin(x), _origin(z)
    for rows in _blocks(len(x), x.shape[1]):
        total += _products(_transposed(x[rows] - origin)[None], _transposed(z[rows] - target)[None])
    return total.moved(origin[None], target[None]).scaled(exponent_x, exponent_z)


def convolution_statistics(
    x: np.ndarray, z: np.ndarray, window: Window, step: int = 1, first_position: int = 0
) -> LayerStatistics:
    """Statistics of a convolution, of any group count, plain, depthwise or transposed; see ``dense_statistics``.

    Args:
        x: inputs ``[N, H, W, I]``, float32.
        z: float outputs before the activation function, ``[N, Ho, Wo, O]``.
        window: geometry of the convolution.
        step: keep the positions whose number in the whole data set is a multiple of it.
        first_position: number of the first position here, so that shards keep what one pass would.
    """
    x, z = np.asarray(x, np.float32), np.asarray(z, np.float32)
    _check_rows(len(x), len(z))
    groups, channels = window.groups, x.shape[3]
    if channels % groups or z.shape[3] % groups:
        raise ValueError(f"{groups} groups do not divide {channels} input and {z.shape[3]} output channels")
    if window.taps == 1 and window.strides == (1, 1) and groups == 1:
        return dense_statistics(x, z, step, first_position)
    padded, origins, offsets = tap_indices(x, z.shape[1:3], window)
    kept = slice(-first_position % step, None, step)
    origins, z = origins[kept], z.reshape(-1, z.shape[3])[kept]
    (pixels, exponent_x), (z, exponent_z) = _with_squares(padded.reshape(-1, channels)), _with_squares(z)
    origin, target = _origin(pixels[origins + offsets[len(offsets) // 2]]), _origin(z)
    total = _zeros(groups, z.shape[1] // groups, channels // groups * window.taps)
    for rows in _blocks(len(z), channels * window.taps):
        count = len(origins[rows])
        patches = np.empty((channels, window.taps, count), np.float32)
        for tap, offset in enumerate(offsets):
            _transpose(pixels[origins[rows] + offset] - origin, patches[:, tap])
        outputs = _transposed(z[rows] - target)
        total += _products(patches.reshape(groups, -1, count), outputs.reshape(groups, -1, count))
    total = total.moved(np.repeat(origin, window.taps).reshape(groups, -1), target.reshape(groups, -1))
    return total.scaled(exponent_x, exponent_z)


def _with_squares(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values whose squares float32 can hold: very small ones in units of a power of two, and its exponent."""
    largest = max(values.max(initial=0.0), -values.min(initial=0.0))
    exponent = math.frexp(largest)[1] if 0.0 < largest < SMALL else 0
    return (np.ldexp(values, -exponent) if exponent else values), exponent


def _origin(values: np.ndarray) -> np.ndarray:
    """A point ``[columns]`` that float32 products are taken of differences to, so that sums lose little precision.

    The mean of columns that vary little around it, 0 for others, so that the many zeros of some inputs stay zeros.
    """
    if not len(values):
        return np.zeros(values.shape[1], np.float32)
    mean = values.mean(axis=0)
    second_moment = np.einsum("mc,mc->c", values, values) / np.float32(len(values))
    return np.where(np.square(mean) > _NEARLY_CONSTANT * second_moment, mean, np.float32(0.0))


def _check_rows(inputs: int, outputs: int) -> None:
    if inputs != outputs:
        raise ValueError(f"{inputs} rows of inputs but {outputs} rows of outputs")


def _blocks(count: int, width: int) -> Iterator[slice]:
    """Cut ``count`` positions into blocks of ``BLOCK_SIZE`` numbers in their patches."""
    length = max(SHORTEST_BLOCK, BLOCK_SIZE // width)
    return (slice(start, start + length) for start in range(0, count, length))


def _zeros(groups: int, outputs: int, inputs: int) -> LayerStatistics:
    sum_x, sum_z, sum_zz = (np.zeros((groups, size)) for size in (inputs, outputs, outputs))
    gram, cross = (np.zeros((groups, size, inputs)) for size in (inputs, outputs))
    return LayerStatistics(0, sum_x, sum_z, sum_zz, gram, cross)


def _products(x: np.ndarray, z: np.ndarray) -> LayerStatistics:
    """Statistics of inputs ``[G, K, M]`` and outputs ``[G, P, M]`` at ``M`` positions: float32 products.

    Sums are float32 as well: numpy adds neighbours in pairs, which loses no more than the products do.
    """
    if len(x) == 1:  # BLAS does a matrix times its own transpose at half the cost
        gram, cross = product(x[0], x[0].T)[None], product(z[0], x[0].T)[None]
    else:
        gram, cross = product(x, x.transpose(0, 2, 1)), product(z, x.transpose(0, 2, 1))
    sum_x, sum_z, sum_zz = (values.sum(axis=2).astype(np.float64) for values in (x, z, np.square(z)))
    return LayerStatistics(x.shape[2], sum_x, sum_z, sum_zz, gram.astype(np.float64), cross.astype(np.float64))


def _transpose(values: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Write ``[M, C]`` into ``[C, M]``, few rows at a time, which stay in the cache for all columns."""
    for start in range(0, len(values), SHORTEST_BLOCK):
        part = slice(start, start + SHORTEST_BLOCK)
        into[:, part] = values[part].T
    return into


def _transposed(values: np.ndarray) -> np.ndarray:
    return _transpose(values, np.empty(values.shape[::-1], values.dtype))
