"""An evaluation as a value of sums: what shards found adds up, however many samples there are.

How an output of one column is read, as probabilities or as logits, depends on all its values
(``tfptq.evaluation.classes.decisions``). So what depends on that is kept for each way to read it until all are known.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tfptq.core.decibels import decibels, powers
from tfptq.data.checks import Batch
from tfptq.data.errors import DataError
from tfptq.evaluation.classes import accuracy, are_probabilities, decisions
from tfptq.evaluation.fidelity import Fidelity, check_shapes
from tfptq.evaluation.metrics import Arrays, Metric, Score, assigned, numbers_of, of_output

#: Whether the column of the file and that of the float model are probabilities; None of outputs of several columns.
Reading = tuple[bool | None, bool | None]


@dataclass(frozen=True)
class Moments:
    """Sums of one number for each sample, float64; ``a + b`` are those of both."""

    count: int
    total: float
    squares: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Of values ``[samples]``."""
        return cls(len(values), float(values.sum()), float(np.square(values).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / self.count

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean of independent values; None of a single one."""
        if self.count < 2:
            return None
        scatter = max(self.squares - self.total**2 / self.count, 0.0)
        return math.sqrt(scatter / (self.count - 1) / self.count)


@dataclass(frozen=True)
class ScoreSums:
    """A metric of the file, of the float model, and what the file loses; the latter two are None without that model."""

    file: Moments
    reference: Moments | None
    lost: Moments | None

    @classmethod
    def of(cls, found: np.ndarray, expected: np.ndarray | None) -> "ScoreSums":
        """Of numbers ``[samples]`` of the file and of the float model."""
        if expected is None:
            return cls(Moments.of(found), None, None)
        return cls(Moments.of(found), Moments.of(expected), Moments.of(expected - found))

    def __add__(self, other: "ScoreSums") -> "ScoreSums":
        return ScoreSums(
            self.file + other.file, _sum_of(self.reference, other.reference), _sum_of(self.lost, other.lost)
        )


@dataclass(frozen=True)
class OutputSums:
    """One output.

    Attributes:
        probabilities: whether all values of the file, and all of the float model, can be probabilities; None of outputs
            of several columns, and without the model.
        powers: signal and noise; zeros without a float model.
        agreement: how the columns are read -> decisions that are the same; empty without a float model.
    """

    probabilities: Reading
    powers: tuple[float, float] = (0.0, 0.0)
    agreement: Mapping[Reading, Moments] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, found: np.ndarray, expected: np.ndarray | None) -> "OutputSums":
        """Of an output ``[samples, ...]`` of the file and of the float model."""
        own = _can_be_probabilities(found)
        if expected is None:
            return cls((own, None))
        check_shapes(name, expected, found)
        signal, noise = powers(expected.astype(np.float64), found.astype(np.float64))
        probabilities = own, _can_be_probabilities(expected)
        agreement = {}
        for reading in readings(probabilities):
            same = decisions(expected, reading[1]) == decisions(found, reading[0])
            agreement[reading] = Moments.of(same.reshape(len(found), -1).mean(axis=1))
        return cls(probabilities, (float(signal), float(noise)), agreement)

    def __add__(self, other: "OutputSums") -> "OutputSums":
        one, another = (
            None if mine is None or its is None else mine and its
            for mine, its in zip(self.probabilities, other.probabilities, strict=True)
        )
        signal, noise = (mine + its for mine, its in zip(self.powers, other.powers, strict=True))
        return OutputSums((one, another), (signal, noise), _added(self.agreement, other.agreement))

    def fidelity(self, name: str) -> Fidelity | None:
        """The output against the float model; None without one."""
        if not self.agreement:
            return None
        ratio = decibels(*self.powers)
        if self.probabilities[1] is False:
            return Fidelity(name, ratio)
        same = self.agreement[self.probabilities]
        return Fidelity(name, ratio, same.mean, same.standard_error)


@dataclass(frozen=True)
class EvaluationSums:
    """What an evaluation found; ``a + b`` is what it found on the samples of both.

    Attributes:
        samples: number of samples.
        outputs: name of an output -> its sums.
        scores: name of an output, ``""`` for all at once -> how its columns are read -> sums of its metric.
    """

    samples: int
    outputs: Mapping[str, OutputSums]
    scores: Mapping[str, Mapping[Reading, ScoreSums]]

    def __add__(self, other: "EvaluationSums") -> "EvaluationSums":
        """Raises a DataError where one of the two has labels and the other has none."""
        if set(self.scores) != set(other.scores):
            raise DataError("some of the samples for evaluation have labels, and others have none")
        outputs = _added(self.outputs, other.outputs)
        scores = {name: _added(known, other.scores[name]) for name, known in self.scores.items()}
        return EvaluationSums(self.samples + other.samples, outputs, scores)

    def results(self, metrics: Mapping[str, Metric]) -> tuple[Score, ...]:
        """What metrics by the name of the output say."""
        return tuple(self._score(name, metrics[name]) for name in self.scores)

    def _score(self, name: str, metric: Metric) -> Score:
        by_reading = self.scores[name]
        reading = (None, None) if (None, None) in by_reading else self.outputs[name].probabilities
        sums = by_reading[reading]
        theirs = None if sums.reference is None else sums.reference.mean
        error = None if sums.lost is None else sums.lost.standard_error
        return Score(metric.name, name, sums.file.mean, theirs, error, metric.lower_is_better)


def evaluation_sums(
    metrics: Metric | Mapping[str, Metric] | None, labels: Batch, found: Batch, expected: Batch
) -> EvaluationSums:
    """Sums of one batch.

    Args:
        metrics: the metric, or output name -> metric; None for none.
        labels: output name -> labels; empty without any.
        found: output name -> values of the file.
        expected: the same of the float model; empty without one.

    Raises:
        DataError: labels do not fit.
        ValueError: a metric gives no number for each sample; or the float model is another one.
    """
    outputs = {name: OutputSums.of(name, values, expected.get(name)) for name, values in found.items()}
    scores = {}
    for name, metric in (assigned(metrics, labels, found) if metrics else {}).items():
        true, ours, theirs = (of_output(name, arrays) for arrays in (labels, found, expected))
        is_accuracy = metric.compute is accuracy
        ways = readings(outputs[name].probabilities) if is_accuracy else [(None, None)]
        scores[name] = {reading: _score_sums(metric, true, ours, theirs, reading) for reading in ways}
    return EvaluationSums(len(next(iter(found.values()))), outputs, scores)


def readings(probabilities: Reading) -> list[Reading]:
    """All ways to read columns of which some values are known."""
    one, another = ((None,) if kind is None else (True, False) for kind in probabilities)
    return list(itertools.product(one, another))


def _score_sums(metric: Metric, labels: Arrays, found: Arrays, expected: Arrays, reading: Reading) -> ScoreSums:
    ours = _numbers(metric, labels, found, reading[0])
    return ScoreSums.of(ours, None if expected is None else _numbers(metric, labels, expected, reading[1]))


def _numbers(metric: Metric, labels: Arrays, outputs: Arrays, probabilities: bool | None) -> np.ndarray:
    """What a metric says of each sample, float64 ``[samples]``."""
    how = {} if probabilities is None else {"probabilities": probabilities}
    values = numbers_of(metric, metric.compute(labels, outputs, **how), outputs)
    if not values.ndim:
        raise ValueError(
            f"the metric {metric.name!r} gives one number for all samples, which does not add up over shards; "
            "let it return an array with a number for each sample"
        )
    return values


def _sum_of(one: Moments | None, another: Moments | None) -> Moments | None:
    return None if one is None or another is None else one + another


def _can_be_probabilities(values: np.ndarray) -> bool | None:
    """Whether all values of a column can be probabilities; None of several columns and of integers."""
    if values.dtype.kind != "f" or (values.ndim > 1 and values.shape[-1] > 1):
        return None
    return are_probabilities(values)


def _added(some: Mapping, others: Mapping) -> dict:
    return {key: value + others[key] for key, value in some.items()}
