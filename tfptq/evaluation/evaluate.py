"""Evaluate a ``.tflite`` file on labelled samples."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfptq.base.cpus import usable_cpus
from tfptq.base.progress import Progress
from tfptq.base.quiet import quiet
from tfptq.base.warn import warn_caller
from tfptq.data.checks import Batch, DataError
from tfptq.data.errors import blaming_samples, naming_evaluation
from tfptq.data.labelled import LabelledBatch, LabelledData
from tfptq.evaluation.chance import doubt_about_labels
from tfptq.evaluation.fidelity import fidelity
from tfptq.evaluation.files import (
    Subject,
    WithFile,
    float_file_of,
    matched_inputs,
    matched_outputs,
    one_batch,
    subject_of,
)
from tfptq.evaluation.latency import Latency, interleaved_milliseconds, timed
from tfptq.evaluation.metrics import Metric, assigned, resolve_metrics, scores
from tfptq.evaluation.result import Evaluation
from tfptq.evaluation.runner import FileEnds, FileRunner, file_ends, in_threads, make_interpreter, to_codes

#: Samples that latency is measured on, in turn.
TIMED_SAMPLES = 16

#: Output name -> real values ``[samples, ...]``.
Outputs = dict[str, np.ndarray]


def evaluate(
    file: str | os.PathLike | bytes | WithFile,
    dataset: Any,
    model: Any = None,
    metric: Any = "accuracy",
    *,
    labels: Any = None,
    latency_seconds: float = 1.0,
    threads: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Run a ``.tflite`` file in LiteRT and compare its outputs with the labels and with the float model.

    Integer inputs and outputs are converted from and to real values, by the scales in the file. The outputs of all
    samples are kept in memory, the samples are not.

    Args:
        file: path or bytes of a file of any origin, or the result of ``quantize_keras_model``.
        dataset: samples as for ``quantize_keras_model``, and labels as for ``model.fit``: ``(samples, labels)``, or
            elements ``(inputs, labels)`` of a stream. Without a Keras model, several inputs are given by their names
            in the file (``tfptq.inspect``).
        model: the float model to compare with: a Keras model of any kind, a float ``.tflite`` file, or any other source
            that ``tfptq.quantize`` accepts. A result has its own.
        metric: ``"accuracy"`` (labels are classes, one-hot, or 0 and 1 for one column); a Keras metric or its name; a
            function of labels and outputs that returns one number, or an array with one for each sample; a dict of
            these by output name; or None. With several outputs, a function gets dicts by output name; without labels,
            it gets None.
        labels: labels, if they are not in the dataset: an array, or for several outputs a dict by name.
        latency_seconds: how long to measure the latency of one sample on one thread; 0 skips the measurement.
        threads: number of threads that run the files; None for all processors.
        progress: show a progress bar when standard error is a terminal.

    Raises:
        DataError: samples or labels do not match the model.
        ValueError: the file, the model or the metric is not supported; the message says why.
        TypeError: an argument has the wrong type.
        OSError: a path cannot be read.

    Examples:
        >>> result = tfptq.quantize_keras_model(model, images[:256])
        >>> print(tfptq.evaluate(result, (test_images, test_labels)))
    """
    result = evaluate_subject(
        subject_of(file, model),
        dataset,
        metric,
        labels=labels,
        latency_seconds=latency_seconds,
        threads=threads,
        steps=Progress(progress),
    )
    for text in result.warnings:
        warn_caller(text)
    return result


def evaluate_subject(
    subject: Subject,
    dataset: Any,
    metric: Any = "accuracy",
    *,
    labels: Any = None,
    latency_seconds: float = 0.0,
    threads: int | None = None,
    steps: Progress,
) -> Evaluation:
    """Evaluate a file that is read already; for the other arguments see ``evaluate``."""
    names = [row.name for row in subject.ends.outputs]
    metrics = resolve_metrics(metric, names)
    outputs, given = (names, labels) if metrics else ((), None)
    data = LabelledData(subject.specs, outputs, dataset, given, in_order=subject.in_order)
    first = next(iter(data)).inputs
    reference = subject.float_content
    if reference is None and subject.model is not None:
        reference = float_file_of(subject.model, first)
    pair = FilePair(subject.content, subject.ends, reference)
    with steps.step("evaluate", total=data.known_samples) as advance:
        found, expected, true = _collect(pair, data, threads or usable_cpus(), advance)
    return Evaluation(
        samples=len(next(iter(found.values()))),
        bytes=len(subject.content),
        float_bytes=None if reference is None else len(reference),
        scores=scores(metrics, true, found, expected) if metrics else (),
        fidelities=tuple(fidelity(name, expected[name], found[name]) for name in names) if expected else (),
        latency=pair.latency(first, latency_seconds) if latency_seconds > 0 else None,
        warnings=tuple(_doubts(metrics, true, expected)),
    )


def _doubts(metrics: Metric | dict[str, Metric] | None, labels: Batch, expected: Outputs) -> Iterator[str]:
    """Warnings on outputs whose labels do not fit the float model."""
    judged = assigned(metrics, labels, expected) if metrics and expected else {}
    for name, metric in judged.items():
        if metric.name != "accuracy" or name not in labels:
            continue
        doubt = doubt_about_labels(labels[name], expected[name])
        if doubt is not None:
            yield doubt if len(judged) == 1 else f"output {name!r}: {doubt}"


@dataclass(frozen=True, eq=False)
class _File:
    """A file, and how its ends go with those of the file under evaluation.

    Attributes:
        content: the file.
        ends: its ends.
        inputs: for each of its inputs the name of the samples.
        outputs: for each output of the file under evaluation the position of its own.
    """

    content: bytes
    ends: FileEnds
    inputs: Sequence[str]
    outputs: Sequence[int]


class FilePair:
    """A file and the float file beside it, which may be missing, on the same samples.

    Args:
        content: the file.
        ends: its ends.
        reference: the float file, or None.

    Raises:
        ValueError: they have other inputs or outputs.
    """

    def __init__(self, content: bytes, ends: FileEnds, reference: bytes | None):
        self._names = [row.name for row in ends.outputs]
        self._files = [_File(content, ends, [row.name for row in ends.inputs], range(len(ends.outputs)))]
        if reference is not None:
            others = file_ends(reference)
            self._files.append(_File(reference, others, matched_inputs(ends, others), matched_outputs(ends, others)))

    def runners(self) -> Callable[[LabelledBatch], tuple[list[Outputs], Batch]]:
        """A function that runs the files on a batch, with interpreters of its own; it returns the labels as well."""
        runners = [FileRunner.of(file.content, file.ends) for file in self._files]

        def run(batch: LabelledBatch) -> tuple[list[Outputs], Batch]:
            results = []
            for runner, file in zip(runners, self._files, strict=True):
                with naming_evaluation(), blaming_samples():
                    found = runner.run([batch.inputs[name] for name in file.inputs])
                results.append({name: found[at] for name, at in zip(self._names, file.outputs, strict=True)})
            return results, batch.labels

        return run

    def latency(self, samples: Batch, seconds: float) -> Latency:
        """Times of inferences of one sample, or of as many as the file takes at once."""
        invokes = []
        for file in self._files:
            interpreter, size = make_interpreter(file.content), file.ends.batch_size or 1
            few = one_batch(samples, size * TIMED_SAMPLES)
            codes = [to_codes(few[name], row) for name, row in zip(file.inputs, file.ends.inputs, strict=True)]
            for details, values in zip(interpreter.get_input_details(), codes, strict=True):
                interpreter.resize_tensor_input(details["index"], values[:size].shape)
            with quiet():
                interpreter.allocate_tensors()
            starts = range(0, size * TIMED_SAMPLES, size)
            invokes.append(timed(interpreter, [[values[at : at + size] for values in codes] for at in starts]))
        medians, runs = interleaved_milliseconds(invokes, seconds)
        return Latency(medians[0], medians[1] if len(medians) > 1 else None, runs)


def _collect(
    pair: FilePair, data: Iterable[LabelledBatch], threads: int, advance: Callable[[int], None]
) -> tuple[Outputs, Outputs, Batch]:
    """Outputs of the file, of the float file (empty without one), and labels, of all samples."""
    ours: list[Outputs] = []
    floats: list[Outputs] = []
    true: list[Batch] = []
    for (found, *expected), labels in in_threads(pair.runners, data, threads):
        ours.append(found)
        floats.append(expected[0] if expected else {})
        true.append(labels)
        advance(len(next(iter(found.values()))))
    return _joined(ours), _joined(floats), _joined(true)


def _joined(parts: list[Outputs]) -> Outputs:
    """The arrays of all parts behind each other.

    Raises:
        DataError: samples have different shapes.
    """
    for name in parts[0]:
        shapes = {part[name].shape[1:] for part in parts}
        if len(shapes) > 1:
            listed = " and ".join(str(list(shape)) for shape in sorted(shapes))
            raise DataError(f"{name!r} has samples of shape {listed}; evaluate samples of one shape at a time")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
