"""An evaluation as a value of sums: what shards found adds up, however many samples there are.

What depends on how a column is read (``tfptq.evaluation.fidelity.Reading``) is kept for each way to read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.data.checks import Batch
from tfptq.data.errors import DataError
from tfptq.evaluation.classes import accuracy
from tfptq.evaluation.fidelity import OutputSums, Reading, added, readings
from tfptq.evaluation.metrics import Arrays, Metric, Score, assigned, numbers_of, of_output
from tfptq.evaluation.moments import Moments


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
        outputs = added(self.outputs, other.outputs)
        scores = {name: added(known, other.scores[name]) for name, known in self.scores.items()}
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
