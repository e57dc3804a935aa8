"""Calibration data: one stream of named numpy batches that can be read any number of times.

Iterating over ``CalibrationData`` gives dicts from input name to an array ``[batch, ...]`` of the type that the model
declares. Calibration makes several passes, so a stream must be able to start again. Every batch of every pass is
checked, and none is kept. ``open_dataset`` lists the kinds of datasets.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfptq.data.checks import Batch, DataError, InputSpec, checked, input_specs
from tfptq.data.open_dataset import open_dataset, refuse_endless
from tfptq.data.random_samples import random_samples

#: A stream that does not tell its length ends here, or is taken to be endless. A few hundred samples are enough.
MOST_STREAMED = 1 << 18


class CalibrationData:
    """A stream of calibration batches that can be read any number of times.

    Args:
        inputs: what the model asks for.
        open_pass: starts a new pass over the elements of the source.
        batch_size: samples in a batch. The last one may be smaller, and so may one before a change of the sample shape.
        known_samples: number of samples, if the source tells it.
        fill: repeat samples in a smaller batch until it is full, for models with a fixed batch size.
        made_up: whether they are random numbers, in place of samples that the user does not have.

    Raises:
        DataError: the dataset is empty, or its first element does not fit.
    """

    def __init__(
        self,
        inputs: tuple[InputSpec, ...],
        open_pass: Callable[[], Iterator[Any]],
        batch_size: int,
        known_samples: int | None = None,
        fill: bool = False,
        made_up: bool = False,
    ):
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1")
        self.inputs = inputs
        self.batch_size = batch_size
        self.fill = fill
        self.made_up = made_up
        self._open_pass = open_pass
        self._num_samples = known_samples
        if next(iter(self), None) is None:
            raise DataError("the calibration dataset is empty; give at least one sample, better a few hundred")

    def __iter__(self) -> Iterator[Batch]:
        """Start a pass.

        Raises:
            DataError: an element does not fit the model, or this pass has another length than the one before.
        """
        seen = 0
        for batch in rebatch(self._pieces(), self.batch_size):
            seen += length_of(batch)
            refuse_endless(self._num_samples is None and seen > MOST_STREAMED)
            yield _filled(batch, self.batch_size) if self.fill else batch
        if self._num_samples not in (None, seen):
            raise DataError(
                f"the calibration dataset gave {self._num_samples} samples in one pass and {seen} in the next; "
                "calibration makes several passes, so each must give all samples"
            )
        self._num_samples = seen

    def _pieces(self) -> Iterator[Batch]:
        """The elements of the source as they come, checked."""
        first = 0
        for element in self._open_pass():
            piece = checked(self.inputs, element, first)
            first += length_of(piece)
            yield piece

    def in_full_batches(self, batch_size: int) -> "CalibrationData":
        """The same samples in batches of exactly ``batch_size``; some are repeated to fill the last."""
        return CalibrationData(self.inputs, self._open_pass, batch_size, self._num_samples, True, self.made_up)

    def spread(self, most_samples: int | None) -> "SpreadBatches":
        """Batches evenly spread over a pass, with about ``most_samples`` samples; None for all. May cost a pass."""
        wanted = self.num_samples if most_samples is None else most_samples
        return SpreadBatches(self, max(1, -(-self.num_samples // max(wanted, self.batch_size))))

    def digest(self) -> str:
        """Hexadecimal digest of all samples. Costs a pass."""
        digest = hashlib.sha256()
        for batch in self:
            for name in sorted(batch):
                digest.update(batch[name].tobytes())
        return digest.hexdigest()

    @property
    def known_samples(self) -> int | None:
        """Number of samples if the source or a complete pass told it."""
        return self._num_samples

    @property
    def num_samples(self) -> int:
        """Number of samples. Costs a pass when none was completed yet."""
        if self._num_samples is None:
            for _ in self:
                pass
        assert self._num_samples is not None  # a complete pass sets it
        return self._num_samples


@dataclass(frozen=True)
class SpreadBatches:
    """Every ``step``-th batch of a stream; can be read any number of times."""

    data: CalibrationData
    step: int

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self.data, 0, None, self.step)

    @property
    def num_samples(self) -> int:
        """Number of samples; approximate, since the last batch may be smaller."""
        batches = -(-self.data.num_samples // self.data.batch_size)
        return min(self.data.num_samples, -(-batches // self.step) * self.data.batch_size)


def calibration_data(model: keras.Model, dataset: Any, batch_size: int | None = None) -> CalibrationData:
    """Normalise a dataset for a model.

    Args:
        model: Keras model with defined inputs.
        dataset: an array, a list or dict of arrays, a ``tf.data.Dataset``, a Keras ``PyDataset``, another iterable
            that can be read again, or a function that returns one.
        batch_size: samples in each batch of the result, however the dataset itself is batched; None takes fewer the
            larger the inputs are, so that the activations of a batch stay within a few hundred MiB.

    Raises:
        DataError: the dataset is empty, of an unknown kind, can be read only once or never ends, or its first
            batch does not fit the model. Later batches are checked when they are read.
    """
    return calibration_data_for(input_specs(model), dataset, batch_size)


def calibration_data_for(specs: tuple[InputSpec, ...], dataset: Any, batch_size: int | None = None) -> CalibrationData:
    """``calibration_data`` for inputs that are known without a Keras model."""
    return CalibrationData(specs, *open_dataset(specs, dataset, batch_size))


def random_data(specs: tuple[InputSpec, ...]) -> CalibrationData:
    """A few random samples, in place of those that the user does not have."""
    return CalibrationData(specs, *open_dataset(specs, random_samples(specs)), made_up=True)


def length_of(batch: Batch) -> int:
    """Number of samples."""
    return len(next(iter(batch.values())))


def _filled(batch: Batch, size: int) -> Batch:
    """A batch with its samples repeated, in turn, until there are ``size``."""
    order = np.arange(size) % length_of(batch)
    return batch if length_of(batch) == size else {name: array[order] for name, array in batch.items()}


def rebatch(pieces: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Regroup batches of any size into batches of ``size``; samples of another shape start a new batch."""
    held: list[Batch] = []
    count = 0
    for piece in pieces:
        if held and any(piece[name].shape[1:] != array.shape[1:] for name, array in held[0].items()):
            yield _joined(held)
            held, count = [], 0
        for start, stop in _cuts(length_of(piece), size, count):
            held.append({name: array[start:stop] for name, array in piece.items()})
            count += stop - start
            if count == size:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _cuts(length: int, size: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut a piece so that its first part fills up a batch that holds ``count`` samples already."""
    start = 0
    while start < length:
        stop = min(length, start + size - count)
        yield start, stop
        start, count = stop, 0


def _joined(pieces: list[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
