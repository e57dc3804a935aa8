"""Integer sums of products of linear layers, one block of input channels at a time.

For input codes less their zero point ``x`` and weight codes ``q[O, I, T]``, the partial sum of block column ``h`` is

    A[p, o, h] = sum over channels i of block h, taps t of  q[o, i, t] * x[p + t, i]

A tap multiplies a slice of the input with its ``[I, O]`` matrix and adds the product to a slice of the output. The
products are taken in float64, which is exact here: every sum stays far below 2**53.

In all functions ``x`` is int32 ``[N, H, W, C]``, codes are int8 ``[O, I, T]``, ``channels`` are the input channels (of
each group) that take part, and sums are int64 ``[N, OH, OW, O]``, unless a function says otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """Window of a 2-D convolution. Pairs are (height, width); ``padding`` is ``"SAME"`` or ``"VALID"``."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "VALID"

    def output_size(self, size: int, axis: int) -> int:
        """Number of window positions along an axis of the input."""
        if self.padding == "SAME":
            return -(-size // self.stride[axis])
        return max(-(-(size - self.reach(axis) + 1) // self.stride[axis]), 0)

    def pad_before(self, size: int, axis: int) -> int:
        """Zeros in front of an axis of the input. SAME puts the odd one behind."""
        covered = (self.output_size(size, axis) - 1) * self.stride[axis] + self.reach(axis)
        return max(covered - size, 0) // 2

    def reach(self, axis: int) -> int:
        """How many inputs the window covers along an axis."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def taps(self) -> Iterator[tuple[int, int, int]]:
        """``(tap number, row, column)`` of every tap, in the order of the kernel."""
        for tap in range(self.kernel[0] * self.kernel[1]):
            yield tap, *divmod(tap, self.kernel[1])


def convolution_sums(x: np.ndarray, codes: np.ndarray, geometry: Geometry, channels: slice) -> np.ndarray:
    """Partial sums of a convolution; a grouped one has ``C = groups * I``."""
    outputs, inputs, _ = codes.shape
    groups = x.shape[3] // inputs
    x = x.reshape(*x.shape[:3], groups, inputs)[..., channels].astype(np.float64)
    weights = codes.reshape(groups, outputs // groups, inputs, -1)[:, :, channels].astype(np.float64)
    total = np.zeros((len(x), *_output_sizes(x, geometry), groups, outputs // groups))
    for tap, window, reached in _windows(x, geometry):  # window [N, rows, columns, groups, n]
        matrices = weights[..., tap].transpose(0, 2, 1)  # [groups, n, O/groups]
        product = (window[..., None, :] @ matrices)[..., 0, :] if groups > 1 else window @ matrices[0]
        total[reached] += product
    return total.astype(np.int64).reshape(*total.shape[:3], outputs)


def depthwise_sums(x: np.ndarray, codes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Sums of a depthwise convolution; output channel ``o`` reads input channel ``o // (O/C)``."""
    spread = np.repeat(x, codes.shape[0] // x.shape[3], axis=3).astype(np.int64)
    weights = codes[:, 0].astype(np.int64)
    total = np.zeros((len(x), *_output_sizes(x, geometry), len(codes)), np.int64)
    for tap, window, reached in _windows(spread, geometry):
        total[reached] += window * weights[:, tap]
    return total


def transposed_sums(
    x: np.ndarray, codes: np.ndarray, geometry: Geometry, channels: slice, size: tuple[int, int]
) -> np.ndarray:
    """Partial sums of a transposed convolution: ``geometry`` runs over the *output*, of height and width ``size``."""
    (n, rows, columns, _), (row_step, column_step) = x.shape, geometry.stride
    top, left = geometry.pad_before(size[0], 0), geometry.pad_before(size[1], 1)
    extent = [
        max((count - 1) * step + kernel, before + wanted)
        for count, step, kernel, before, wanted in zip(
            (rows, columns), geometry.stride, geometry.kernel, (top, left), size, strict=True
        )
    ]
    total = np.zeros((n, *extent, codes.shape[0]))
    x, weights = x[..., channels].astype(np.float64), codes[:, channels].astype(np.float64)
    for tap, row, column in geometry.taps():
        reached_rows = slice(row, row + (rows - 1) * row_step + 1, row_step)
        reached_columns = slice(column, column + (columns - 1) * column_step + 1, column_step)
        total[:, reached_rows, reached_columns] += x @ weights[..., tap].T
    return total[:, top : top + size[0], left : left + size[1]].astype(np.int64)


def dense_sums(x: np.ndarray, codes: np.ndarray, channels: slice) -> np.ndarray:
    """Partial sums of a FULLY_CONNECTED: ``x`` int32 ``[P, T, I]``, codes int8 ``[O, I, T]`` -> int64 ``[P, O]``.

    A dense layer has one tap; a convolution whose inputs were gathered in front of the operator has several.
    """
    read, weights = x[:, :, channels].astype(np.float64), codes[:, channels].transpose(0, 2, 1).astype(np.float64)
    return (read.reshape(len(x), -1) @ weights.reshape(len(codes), -1).T).astype(np.int64)


def _output_sizes(x: np.ndarray, geometry: Geometry) -> tuple[int, int]:
    return geometry.output_size(x.shape[1], 0), geometry.output_size(x.shape[2], 1)


def _windows(x: np.ndarray, geometry: Geometry) -> Iterator[tuple[int, np.ndarray, tuple[slice, ...]]]:
    """For each tap its number, the inputs that it sees, and the outputs that see them; padding has no part in it."""
    sizes, outputs = x.shape[1:3], _output_sizes(x, geometry)
    for tap, *place in geometry.taps():
        seen, reached = [], []
        for axis in (0, 1):
            offset = place[axis] * geometry.dilation[axis] - geometry.pad_before(sizes[axis], axis)
            first, behind = _overlap(offset, geometry.stride[axis], sizes[axis], outputs[axis])
            start = first * geometry.stride[axis] + offset
            seen.append(slice(start, start + (behind - first - 1) * geometry.stride[axis] + 1, geometry.stride[axis]))
            reached.append(slice(first, behind))
        if all(part.stop > part.start for part in reached):
            yield tap, x[:, seen[0], seen[1]], (slice(None), *reached)


def _overlap(offset: int, stride: int, size: int, outputs: int) -> tuple[int, int]:
    """Outputs, from the first to behind the last, of which ``output * stride + offset`` is one of ``size`` inputs."""
    first = max(-(offset // stride), 0)
    return first, max(min((size - 1 - offset) // stride + 1, outputs), first)
