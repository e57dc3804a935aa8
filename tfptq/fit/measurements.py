"""What calibration knows about a float file: a value of sums, which add up over shards of the data.

Minima, maxima, counts and histograms are exact, so that they are the same however the batches are shared out; sums of
kernel inputs are float64, and the same but for the order of their additions. A batch is never cut: its histogram holds
a sample of its values, which a cut would change.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.config import Calibration
from tfptq.core.ranges import TensorStatistics, activation_range
from tfptq.core.windows import Window, window_sums
from tfptq.float_file.kernel import KernelUse
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.softmax_inputs import Limits

#: 16-bit grids have precision to spare: values so many times larger than any that calibration saw are not cut off.
HEADROOM = 4.0


@dataclass(frozen=True, eq=False)
class TapSums:
    """What an operator reads under each tap of its window, added up over output positions: float64 ``[G, I*T]``."""

    positions: int
    total: np.ndarray

    def __add__(self, other: "TapSums") -> "TapSums":
        return TapSums(self.positions + other.positions, self.total + other.total)


@dataclass(frozen=True)
class TapReader:
    """What measuring knows of the use of a kernel.

    Attributes:
        operator: position of the operator.
        tensor: index of what its kernel meets.
        inputs: numbers that a tap of one group reads, ``I``.
        window: geometry of the operator.
    """

    operator: int
    tensor: int
    inputs: int
    window: Window

    @classmethod
    def of(cls, use: KernelUse) -> "TapReader":
        """Of the use of a kernel."""
        return cls(use.operator, use.input, use.view.view_shape[1], use.window)

    def tap_sums(self, count: int, total: np.ndarray) -> TapSums:
        """Of so many samples of one shape, whose sum is float64 ``[...]``, as one sample is."""
        sums = total[None] if total.ndim == 3 else total.reshape(1, 1, -1, self.inputs)
        size = self.window.output_size(sums.shape[1], 0), self.window.output_size(sums.shape[2], 1)
        # Padding lowers the mean under border taps; windows over the summed map see that exactly.
        return TapSums(count * math.prod(size), window_sums(sums, size, self.window))


@dataclass(frozen=True, eq=False)
class Measurements:
    """What a float file computed on some samples; ``a + b`` is what it computed on those of both.

    Attributes:
        float_file: SHA-256 of the float file, in hexadecimal digits.
        tensors: tensor index -> statistics of its values, for every float activation tensor, and for constants that
            nothing but softmaxes read.
        inputs: tensor indexes of the model's inputs.
        constants: tensor indexes of these constants.
        clipped: tensor index -> (least, largest) value that counted, for the tensors that have others.
        sums: (position of an operator, tensor index of an activation that a kernel of it meets) -> its sums.
        samples: number of samples seen.
    """

    float_file: str
    tensors: Mapping[int, TensorStatistics]
    inputs: frozenset[int]
    constants: frozenset[int]
    clipped: Mapping[int, Limits]
    sums: Mapping[tuple[int, int], TapSums]
    samples: int

    @property
    def statistics(self) -> dict[int, TensorStatistics]:
        """Tensor index -> statistics, without constants of which nothing is cut off: these are like all others."""
        whole = self.constants - set(self.clipped)
        return {index: found for index, found in self.tensors.items() if index not in whole}

    def ranges(self, calibration: Calibration, bits: int) -> dict[int, Range]:
        """Range of every activation tensor, and of the constants that count only in part, for grids of so many bits."""
        # Inputs are data on a lattice of their own (pixels, say): clipping them gains nothing.
        as_they_are = self.inputs | self.constants
        roomy = HEADROOM if bits == 16 and calibration.method == "mse" else 1.0
        ranges = {}
        for index, found in self.statistics.items():
            method = "min_max" if index in as_they_are else calibration.method
            low, high = activation_range(found, method, calibration.percentile, bits)
            ranges[index] = roomy * low, roomy * high
        return ranges

    def mean_input(self, use: KernelUse) -> np.ndarray:
        """Mean input under each weight of a kernel, float64, in a shape that broadcasts to ``[O, I, T]``."""
        outputs, inputs, taps = use.view.view_shape
        found = self.sums[use.operator, use.input]
        mean = found.total / found.positions  # [G, I*T]
        return np.repeat(mean, outputs // use.window.groups, axis=0).reshape(outputs, inputs, taps)

    def __add__(self, other: "Measurements") -> "Measurements":
        """Raises a ValueError where the two are of different float files."""
        if self.float_file != other.float_file:
            raise ValueError("measurements of two float files do not add up; measure all shards on the same one")
        return dataclasses.replace(
            self,
            tensors={index: found + other.tensors[index] for index, found in self.tensors.items()},
            clipped=_joined(self.clipped, other.clipped, lambda a, b: (min(a[0], b[0]), max(a[1], b[1]))),
            sums={operator: found + other.sums[operator] for operator, found in self.sums.items()},
            samples=self.samples + other.samples,
        )


def _joined(some: Mapping, others: Mapping, add: Callable) -> dict:
    """The entries of both, and the sum of those that both have."""
    shared = {key: add(value, others[key]) for key, value in some.items() if key in others}
    return {**some, **others, **shared}
