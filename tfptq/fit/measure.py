"""Measure a float file over the calibration data: activation ranges and mean inputs of the kernels.

Tensors that nothing but softmaxes read are measured as far as a softmax tells their values apart; see
``tfptq.lowering.softmax_inputs``.
One stream over the data; memory does not grow with the number of samples.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.config import Calibration
from tfptq.core.ranges import TensorStatistics
from tfptq.data.errors import blaming_samples
from tfptq.fit.measurements import InputSum, Measurements
from tfptq.float_file.float_file import FloatFile
from tfptq.lowering.softmax_inputs import NO_LIMITS, Limits, SoftmaxInputs
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner


@dataclass(frozen=True, eq=False)
class MeasuredFile:
    """What measuring reads of a float file: its bytes and little more, which other processes can be sent.

    Attributes:
        data: the file.
        inputs: Keras input name -> tensor index.
        read: tensor indexes of what kernels read.
    """

    data: bytes
    inputs: Mapping[str, int]
    read: tuple[int, ...]

    @classmethod
    def of(cls, float_file: FloatFile) -> "MeasuredFile":
        """Of a float file."""
        return cls(float_file.data, float_file.inputs, tuple(dict.fromkeys(use.input for use in float_file.uses)))


def measure(
    float_file: FloatFile | MeasuredFile,
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
    file = MeasuredFile.of(float_file) if isinstance(float_file, FloatFile) else float_file
    model = TFLiteModel(file.data)
    measuring = _Measuring(file, model, calibration)
    runner = TensorRunner(model, model.activations())
    samples = 0
    for batch in batches:
        with blaming_samples():
            by_tensor = {model.name(file.inputs[name]): values for name, values in batch.items()}
            runner.run(by_tensor, measuring.observe)
        measuring.flush()
        size = len(next(iter(batch.values())))
        samples += size
        advance(size)
    return measuring.result(samples)


class _Measuring:
    """What has been measured so far, while the data runs through a float file."""

    def __init__(self, file: MeasuredFile, model: TFLiteModel, calibration: Calibration):
        self._file, self._model = file, model
        self._softmax_inputs = SoftmaxInputs(model)
        measured = [*model.activations(), *self._softmax_inputs.constants]
        self._statistics = {index: TensorStatistics(calibration.bins) for index in measured}
        self._clipped: dict[int, Limits] = {}
        self._sums: dict[int, dict[tuple[int, ...], InputSum]] = {index: {} for index in file.read}
        #: this batch of what leads to softmaxes: its limits come from the last tensor before each
        self._waiting: dict[int, np.ndarray] = {}

    def observe(self, index: int, values: np.ndarray) -> None:
        """Take in the values of a tensor; those that lead to a softmax wait for ``flush``."""
        if index in self._softmax_inputs.tensors:
            self._waiting[index] = values
        else:
            self._take_in(index, values, NO_LIMITS)
        if index in self._sums:
            found, known = InputSum(len(values), values.sum(axis=0, dtype=np.float64)), self._sums[index]
            shape = values.shape[1:]
            known[shape] = known[shape] + found if shape in known else found

    def flush(self) -> None:
        """Take in what waits, at the end of a batch."""
        limits = self._softmax_inputs.limits(self._waiting)
        for index, values in {**self._waiting, **self._softmax_inputs.constants}.items():
            self._take_in(index, values, limits.get(index, NO_LIMITS))
        self._waiting.clear()  # the runtime wants its memory back

    def result(self, samples: int) -> Measurements:
        """All measurements, of so many samples."""
        return Measurements(
            float_file=hashlib.sha256(self._file.data).hexdigest(),
            tensors=self._statistics,
            inputs=frozenset(self._model.subgraph.inputs),
            constants=frozenset(self._softmax_inputs.constants),
            clipped=self._clipped,
            sums=self._sums,
            samples=samples,
        )

    def _take_in(self, index: int, values: np.ndarray, limits: Limits) -> None:
        low, high = limits
        if values.size and (values.min() < low or values.max() > high):
            values, known = values.clip(low, high), self._clipped.get(index, limits)
            self._clipped[index] = min(low, known[0]), max(high, known[1])
        try:
            self._statistics[index].update(values)
        except ValueError as error:
            raise ValueError(f"calibration of tensor {self._model.name(index)!r}: {error}") from error
