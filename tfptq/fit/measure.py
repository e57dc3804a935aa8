"""Measure a float file over the calibration data: activation ranges and mean inputs of the kernels.

Tensors that nothing but softmaxes read are measured as far as a softmax tells their values apart; see
``tfptq.lowering.softmax_inputs``.
One stream over the data; memory does not grow with the number of samples.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import numpy as np

from tfptq.config import Calibration
from tfptq.core.ranges import TensorStatistics
from tfptq.data.errors import blaming_samples
from tfptq.fit.measurements import Measurements, TapReader, TapSums
from tfptq.fit.recurrent import LstmStates
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
        readers: the uses of kernels.
    """

    data: bytes
    inputs: Mapping[str, int]
    readers: tuple[TapReader, ...]

    @classmethod
    def of(cls, float_file: FloatFile) -> "MeasuredFile":
        """Of a float file."""
        return cls(float_file.data, float_file.inputs, tuple(map(TapReader.of, float_file.uses)))


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


@dataclass(eq=False)
class _SampleSum:
    """Samples of one shape, added up: ``total`` is float64 ``[...]``, as one sample is."""

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, values: np.ndarray) -> None:
        """Take in some samples ``[samples, ...]``."""
        self.count, self.total = self.count + len(values), self.total + values.sum(axis=0, dtype=np.float64)


class _Measuring:
    """What has been measured so far, while the data runs through a float file."""

    def __init__(self, file: MeasuredFile, model: TFLiteModel, calibration: Calibration):
        self._file, self._model = file, model
        self._softmax_inputs = SoftmaxInputs(model)
        measured = [*model.activations(), *self._softmax_inputs.constants]
        self._states = LstmStates(model)
        self._statistics = {index: TensorStatistics(calibration.bins) for index in (*measured, *self._states.cells)}
        self._clipped: dict[int, Limits] = {}
        #: tensor index of what kernels read -> shape of a sample -> samples of that shape
        self._sums: dict[int, dict[tuple[int, ...], _SampleSum]] = {it.tensor: {} for it in file.readers}
        #: this batch of what leads to softmaxes: its limits come from the last tensor before each
        self._waiting: dict[int, np.ndarray] = {}

    def observe(self, index: int, values: np.ndarray) -> None:
        """Take in the values of a tensor; those that lead to a softmax wait for ``flush``."""
        if index in self._softmax_inputs.tensors:
            self._waiting[index] = values
        else:
            self._take_in(index, values, NO_LIMITS)
        self._states.observe(index, values)
        self._add_up(index, values)

    def _add_up(self, index: int, values: np.ndarray) -> None:
        if index in self._sums:
            self._sums[index].setdefault(values.shape[1:], _SampleSum()).add(values)

    def flush(self) -> None:
        """Take in what waits, at the end of a batch."""
        limits = self._softmax_inputs.limits(self._waiting)
        for index, values in {**self._waiting, **self._softmax_inputs.constants}.items():
            self._take_in(index, values, limits.get(index, NO_LIMITS))
        self._waiting.clear()  # the runtime wants its memory back
        for index, values in self._states.flush(self._add_up):
            self._take_in(index, values, NO_LIMITS)

    def result(self, samples: int) -> Measurements:
        """All measurements, of so many samples."""
        return Measurements(
            float_file=hashlib.sha256(self._file.data).hexdigest(),
            tensors=self._statistics,
            inputs=frozenset(self._model.subgraph.inputs),
            constants=frozenset(self._softmax_inputs.constants),
            clipped=self._clipped,
            sums={
                (reader.operator, reader.tensor): self._tap_sums(reader)
                for reader in self._file.readers
                if self._sums[reader.tensor]
            },
            samples=samples,
        )

    def _tap_sums(self, reader: TapReader) -> TapSums:
        """Of all samples, whatever their shapes are."""
        return reduce(add, (reader.tap_sums(part.count, part.total) for part in self._sums[reader.tensor].values()))

    def _take_in(self, index: int, values: np.ndarray, limits: Limits) -> None:
        low, high = limits
        if values.size and (values.min() < low or values.max() > high):
            values, known = values.clip(low, high), self._clipped.get(index, limits)
            self._clipped[index] = min(low, known[0]), max(high, known[1])
        try:
            self._statistics[index].update(values)
        except ValueError as error:
            raise ValueError(f"calibration of tensor {self._model.name(index)!r}: {error}") from error
