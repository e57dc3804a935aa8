"""Which inputs each output of a convolution reads: its window, and the pixels under each tap."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """Which inputs each output position of a two-dimensional convolution reads (one-dimensional: height 1)."""

    kernel: tuple[int, int] = (1, 1)  # height and width of the kernel
    strides: tuple[int, int] = (1, 1)  # of the output over the input; of the input over the output when transposed
    dilations: tuple[int, int] = (1, 1)  # distance of neighbouring taps
    padding: str = "valid"  # ``"same"`` or ``"valid"``, as TensorFlow defines them
    groups: int = 1  # groups of input channels; all of them for a depthwise convolution
    transposed: bool = False  # a transposed convolution

    def __post_init__(self):
        if self.padding not in ("same", "valid"):
            raise ValueError(f"padding is {self.padding!r}; it must be 'same' or 'valid'")

    @property
    def taps(self) -> int:
        """Number of taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    def extent(self, axis: int) -> int:
        """How many inputs a dilated kernel covers along a spatial axis."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def output_size(self, size: int, axis: int) -> int:
        """Number of outputs along a spatial axis for ``size`` inputs, as TensorFlow counts them."""
        stride, extent = self.strides[axis], self.extent(axis)
        if self.transposed:
            return size * stride if self.padding == "same" else (size - 1) * stride + max(extent, stride)
        return -(-size // stride) if self.padding == "same" else (size - extent) // stride + 1


def tap_indices(x: np.ndarray, output_size: tuple[int, int], window: Window) -> tuple[np.ndarray, ...]:
    """Pad ``x`` so that every tap of every output position is one of its pixels.

    Returns:
        The padded array ``[N, Hp, Wp, I]``; for each output position (``N*Ho*Wo``) the number of its first tap's
        pixel; for each tap, in kernel order, how many pixels further it reads.
    """
    if window.transposed:
        x = _spread(x, window.strides)
    pads, reach, strides = [], [], (1, 1) if window.transposed else window.strides
    for axis in range(2):
        before, extent = _padding_before(x.shape[1 + axis], output_size[axis], window, axis)
        covered = (output_size[axis] - 1) * strides[axis] + extent
        pads.append((before, max(0, covered - before - x.shape[1 + axis])))
        reach.append(extent)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = padded.shape[1:3]
    rows = np.arange(output_size[0]) * strides[0] * width
    columns = np.arange(output_size[1]) * strides[1]
    samples = np.arange(len(x)) * height * width
    origins = (samples[:, None, None] + rows[:, None] + columns).reshape(-1)
    taps = [range(0, reach[axis], window.dilations[axis]) for axis in range(2)]
    offsets = np.asarray([row * width + column for row in taps[0] for column in taps[1]])
    return padded, origins, offsets[::-1] if window.transposed else offsets


def _padding_before(size: int, output: int, window: Window, axis: int) -> tuple[int, int]:
    """Zeros before the first input along an axis, and how far a dilated kernel reaches."""
    extent, stride = window.extent(axis), window.strides[axis]
    if window.transposed:  # ``size`` is that of the spread input, (n - 1) * stride + 1
        expected = window.output_size((size - 1) // stride + 1, axis)
        cut = max(extent - stride, 0) // 2 if window.padding == "same" else 0
        before = extent - 1 - cut
    else:
        expected = window.output_size(size, axis)
        total = max((expected - 1) * stride + extent - size, 0)
        before = total // 2 if window.padding == "same" else 0
    if output != expected:
        raise ValueError(f"outputs have size {output} along spatial axis {axis}, but {window} gives {expected}")
    return before, extent


def _spread(x: np.ndarray, strides: tuple[int, int]) -> np.ndarray:
    """Put ``stride - 1`` zeros between neighbouring pixels."""
    shape = (len(x), (x.shape[1] - 1) * strides[0] + 1, (x.shape[2] - 1) * strides[1] + 1, x.shape[3])
    spread = np.zeros(shape, x.dtype)
    spread[:, :: strides[0], :: strides[1]] = x
    return spread


def window_sums(x: np.ndarray, output_size: tuple[int, int], window: Window) -> np.ndarray:
    """What each tap reads of inputs ``[N, H, W, I]``, summed over all output positions.

    float64 ``[G, K]`` with ``K = I/G * T``, channels outermost.
    """
    channels = x.shape[3]
    padded, origins, offsets = tap_indices(x, output_size, window)
    pixels = padded.reshape(-1, channels)
    taps = [pixels[origins + offset].sum(axis=0, dtype=np.float64) for offset in offsets]
    return np.stack(taps, axis=1).reshape(window.groups, -1)
