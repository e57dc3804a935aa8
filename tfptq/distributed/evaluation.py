"""``tfptq.evaluate`` for labelled samples that lie in shards."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from tfptq.base.progress import Progress
from tfptq.data.checks import Batch, InputSpec
from tfptq.data.errors import naming_evaluation
from tfptq.data.labelled import LabelledData
from tfptq.distributed.drawing import ByShard
from tfptq.distributed.evaluation_sums import EvaluationSums, evaluation_sums
from tfptq.distributed.runners import InProcess, Runner
from tfptq.distributed.shards import Shard, naming_shard, samples_and_labels, shards_of
from tfptq.evaluation.evaluate import FilePair
from tfptq.evaluation.files import Subject, WithFile, float_file_of, subject_of
from tfptq.evaluation.metrics import Metric, assigned, resolve_metrics
from tfptq.evaluation.result import Evaluation


def evaluate(
    file: str | os.PathLike | bytes | WithFile,
    shards: Any,
    model: Any = None,
    metric: Any = "accuracy",
    *,
    runner: Runner | None = None,
    progress: bool = True,
) -> Evaluation:
    """Run a ``.tflite`` file on any number of samples, and judge what it computes, beside the float model.

    Everything is a sum over samples: right and equal decisions, powers of signal and noise, and squares for the
    standard errors. So memory does not grow with the samples, and shards come back as a few hundred bytes each.

    Args:
        file: path or bytes of a file of any origin, or the result of a quantization.
        shards: as for ``tfptq.distributed.quantize``, with labels: an array ``labels`` in each ``.npz`` file
            (``labels:<output>`` for several outputs), or functions that return iterables of ``(inputs, labels)``.
        model: the float model to compare with, as for ``tfptq.evaluate``. A result brings its own.
        metric: ``"accuracy"``, a function at the top of a module that returns a number for each sample, a dict of these
            by output name, or None. Metrics of Keras do not add up over shards.
        runner: as for ``tfptq.distributed.quantize``.
        progress: show a progress bar when the standard error stream is a terminal.

    Returns:
        What ``tfptq.evaluate`` returns, without latency.

    Raises:
        DataError: samples or labels do not fit; the shard is named.
        ValueError: the file, the model or the metric cannot be used; the message says why.
        TypeError: an argument of the wrong type, or one that cannot be sent to other processes.
        OSError: a path cannot be read.

    Examples:
        >>> print(tfptq.distributed.evaluate("net.tflite", "test_shards", "net.keras", runner=runner))
    """
    subject, shards, runner = subject_of(file, model), shards_of(shards), runner or InProcess()
    names = [row.name for row in subject.ends.outputs]
    metrics = resolve_metrics(metric, names)
    _check_adds_up(metrics)
    source = _Source(subject.specs, names if metrics else (), subject.in_order)
    with Progress(progress).step("evaluate"):
        reference = _reference(subject, source, shards[0], runner)
        judge = JudgeShard(source, FilePair(subject.content, subject.ends, reference), metrics)
        found = runner.sum(judge, shards)
    by_output = assigned(metrics, [name for name in found.scores if name], names) if metrics else {}
    fidelities = (sums.fidelity(name) for name, sums in found.outputs.items())
    return Evaluation(
        samples=found.samples,
        bytes=len(subject.content),
        float_bytes=None if reference is None else len(reference),
        scores=found.results(by_output),
        fidelities=tuple(item for item in fidelities if item is not None),
        latency=None,
    )


def _check_adds_up(metrics: Metric | Mapping[str, Metric] | None) -> None:
    """Refuse metrics of Keras, each of which has a state of its own."""
    given = [metrics] if isinstance(metrics, Metric) else list((metrics or {}).values())
    for metric in given:
        if metric.of_parts:
            raise ValueError(
                f"the metric {metric.name!r} of Keras does not add up over shards; give 'accuracy', or a function of "
                "labels and outputs that returns a number for each sample"
            )


@dataclass(frozen=True)
class _Source:
    """How labelled shards are read; see ``LabelledData``."""

    specs: tuple[InputSpec, ...]
    outputs: Sequence[str]
    in_order: bool

    def batches(self, shard: Shard) -> LabelledData:
        """Those of a shard."""
        samples, labels = samples_and_labels(shard)
        return LabelledData(self.specs, self.outputs, samples, labels if self.outputs else None, in_order=self.in_order)


@dataclass(frozen=True)
class JudgeShard:
    """The sums of one shard, where a worker is."""

    source: _Source
    pair: FilePair
    metrics: Metric | Mapping[str, Metric] | None

    def __call__(self, shard: Shard) -> EvaluationSums:
        """Raises a DataError that names the shard."""
        run = self.pair.runners()
        with naming_shard(shard), naming_evaluation():
            return reduce(add, (self._sums(*run(batch)) for batch in self.source.batches(shard)))

    def _sums(self, outputs: list[Batch], labels: Batch) -> EvaluationSums:
        found, *expected = outputs
        return evaluation_sums(self.metrics, labels, found, expected[0] if expected else {})


@dataclass(frozen=True)
class FirstBatch:
    """The inputs of the first samples of a shard."""

    source: _Source

    def __call__(self, shard: Shard) -> ByShard:
        """Input name -> values, under the number 0."""
        with naming_shard(shard):
            return ByShard({0: next(iter(replace(self.source, outputs=()).batches(shard))).inputs})


def _reference(subject: Subject, source: _Source, shard: Shard, runner: Runner) -> bytes | None:
    """The float file, which is checked on some samples where it has to be made; None without a float model."""
    if subject.float_content is not None or subject.model is None:
        return subject.float_content
    first = runner.sum(FirstBatch(source), [shard]).parts[0]
    return float_file_of(subject.model, first)
