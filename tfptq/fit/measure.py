"""Measure a float file over the calibration data: activation ranges and mean inputs of the kernels.

Tensors that nothing but softmaxes read are measured as far as a softmax tells their values apart; see
``tfptq.lowering.softmax_inputs``.
One stream over the data; memory does not grow with the number of samples.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.config import Calibration
from tfptq.core.ranges import TensorStatistics, activation_range
from tfptq.core.windows import window_sums
from tfptq.data.errors import blaming_samples
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelUse
from tfptq.lowering.grids import Range
from tfptq.lowering.softmax_inputs import NO_LIMITS, Limits, SoftmaxInputs
from tfptq.tflite.runtime import TensorRunner

#: 16-bit grids have precision to spare: values so many times larger than any that calibration saw are not cut off.
HEADROOM = 4.0


@dataclass(frozen=True, eq=False)
class Measurements:
    """What calibration knows about a float file.

    Attributes:
        statistics: tensor index -> statistics of its values, for every float activation tensor, and for the constants
            that count only in part.
        as_they_are: tensor indexes of the model's inputs and of these constants, whose ranges hold all values.
        clipped: tensor index -> (least, largest) value that counted, for the tensors that have others.
        input_means: position of an operator -> mean input under each weight of its kernel, float64, in a shape
            that broadcasts to the canonical view ``[O, I, T]``.
        samples: number of samples seen.
    """

    statistics: dict[int, TensorStatistics]
    as_they_are: frozenset[int]
    input_means: dict[int, np.ndarray]
    samples: int
    clipped: dict[int, Limits]

    def ranges(self, calibration: Calibration, bits: int) -> dict[int, Range]:
        """Range of every activation tensor, and of the constants that count only in part, for grids of so many bits."""
        # Inputs are data on a lattice of their own (pixels, say): clipping them gains nothing.
        methods = {index: "min_max" if index in self.as_they_are else calibration.method for index in self.statistics}
        roomy = bits == 16 and calibration.method == "mse"
        ranges = {
            index: activation_range(value, methods[index], calibration.percentile, bits)
            for index, value in self.statistics.items()
        }
        return {index: (HEADROOM * low, HEADROOM * high) for index, (low, high) in ranges.items()} if roomy else ranges


def measure(
    float_file: FloatFile,
    batches: Iterable[Mapping[str, np.ndarray]],
    calibration: Calibration,
    advance: Callable[[int], None] = lambda samples: None,
) -> Measurements:
    """Run a stream of batches (Keras input name -> array with a batch axis) through a float file.

    ``advance`` is called with the number of samples of each batch that is done.

    Raises:
        ValueError: a tensor becomes NaN or infinite; it is named.
        DataError: the file fails on a batch.
    """
    measuring = _Measuring(float_file, calibration)
    runner = TensorRunner(float_file.data, float_file.model.activations())
    samples = 0
    for batch in batches:
        with blaming_samples():
            runner.run(float_file.by_tensor_name(batch), measuring.observe)
        measuring.flush()
        size = len(next(iter(batch.values())))
        samples += size
        advance(size)
    return measuring.result(samples)


class _Measuring:
    """What has been measured so far, while the data runs through a float file."""

    def __init__(self, float_file: FloatFile, calibration: Calibration):
        self._float_file = float_file
        self._softmax_inputs = SoftmaxInputs(float_file.model)
        measured = [*float_file.model.activations(), *self._softmax_inputs.constants]
        self._statistics = {index: TensorStatistics(calibration.bins) for index in measured}
        self._clipped: dict[int, Limits] = {}
        #: kernel input -> shape of one sample -> number of such samples, and their sum
        self._sums: dict[int, dict[tuple, tuple[int, np.ndarray]]] = {use.input: {} for use in float_file.uses}
        #: this batch of what leads to softmaxes: its limits come from the last tensor before each
        self._waiting: dict[int, np.ndarray] = {}

    def observe(self, index: int, values: np.ndarray) -> None:
        """Take in the values of a tensor; those that lead to a softmax wait for ``flush``."""
        if index in self._softmax_inputs.tensors:
            self._waiting[index] = values
        else:
            self._take_in(index, values, NO_LIMITS)
        if index in self._sums:
            count, total = self._sums[index].get(values.shape[1:], (0, 0.0))
            self._sums[index][values.shape[1:]] = count + len(values), total + values.sum(axis=0, dtype=np.float64)

    def flush(self) -> None:
        """Take in what waits, at the end of a batch."""
        limits = self._softmax_inputs.limits(self._waiting)
        for index, values in {**self._waiting, **self._softmax_inputs.constants}.items():
            self._take_in(index, values, limits.get(index, NO_LIMITS))
        self._waiting.clear()  # the runtime wants its memory back

    def result(self, samples: int) -> Measurements:
        """All measurements, of so many samples."""
        constants = self._softmax_inputs.constants
        # A constant of which nothing is cut off is one like all others.
        whole = set(constants) - set(self._clipped)
        return Measurements(
            statistics={index: found for index, found in self._statistics.items() if index not in whole},
            as_they_are=frozenset({*self._float_file.model.subgraph.inputs, *constants}),
            input_means={use.operator: _mean_input(use, self._sums[use.input]) for use in self._float_file.uses},
            samples=samples,
            clipped=self._clipped,
        )

    def _take_in(self, index: int, values: np.ndarray, limits: Limits) -> None:
        low, high = limits
        if values.size and (values.min() < low or values.max() > high):
            values, known = values.clip(low, high), self._clipped.get(index, limits)
            self._clipped[index] = min(low, known[0]), max(high, known[1])
        try:
            self._statistics[index].update(values)
        except ValueError as error:
            raise ValueError(f"calibration of tensor {self._float_file.model.name(index)!r}: {error}") from error


def _mean_input(use: KernelUse, maps: Mapping[tuple, tuple[int, np.ndarray]]) -> np.ndarray:
    """Mean input under each weight, broadcastable to ``[O, I, T]``.

    ``maps`` holds, for each shape of one sample of the input, the number of such samples and their sum.
    """
    outputs, inputs, taps = use.view.view_shape
    total, positions = np.zeros(()), 0
    for count, values in maps.values():
        sums = values[None] if values.ndim == 3 else values.reshape(1, 1, -1, inputs)
        size = use.window.output_size(sums.shape[1], 0), use.window.output_size(sums.shape[2], 1)
        # Padding lowers the mean under border taps; windows over the summed map see that exactly.
        total, positions = total + window_sums(sums, size, use.window), positions + count * math.prod(size)
    mean = total / positions  # [G, I*T]
    return np.repeat(mean, outputs // use.window.groups, axis=0).reshape(outputs, inputs, taps)
