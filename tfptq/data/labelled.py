"""Samples with labels, as one pass over named batches: what an evaluation reads.

Labels come inside of the dataset, as in ``model.fit``: ``(samples, labels)``, or elements ``(inputs, labels)`` of a
stream; or beside it, as arrays in the order of the samples.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfptq.data.calibration import length_of, rebatch
from tfptq.data.checks import Batch, DataError, InputSpec, by_name, checked
from tfptq.data.errors import naming_evaluation
from tfptq.data.open_dataset import open_dataset


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Some samples: input name -> ``[batch, ...]``, and output name -> labels ``[batch, ...]``, empty without any."""

    inputs: Batch
    labels: Batch

    def __len__(self) -> int:
        return length_of(self.inputs)


class LabelledData:
    """Batches of samples and their labels.

    Args:
        inputs: what is asked of the inputs.
        outputs: names of the outputs that labels may be for; empty to read no labels.
        dataset: samples in any form that ``tfptq.calibration_data`` takes, with or without labels.
        labels: labels beside the dataset: an array for the one output, a dict by output name, or, of outputs that are
            called ``output_0``, ``output_1``, ..., a list of arrays.
        batch_size: samples in a batch; None for one by their size.
        in_order: whether the order of several inputs is one that users know; else they have to name them.

    Raises:
        DataError: dataset or labels are of an unknown kind, or labels are given twice.
    """

    def __init__(
        self,
        inputs: tuple[InputSpec, ...],
        outputs: Sequence[str],
        dataset: Any,
        labels: Any = None,
        batch_size: int | None = None,
        in_order: bool = True,
    ):
        self._inputs, self._outputs, self._in_order = inputs, _in_order_of_keras(outputs), in_order
        with naming_evaluation():
            samples, own = self._split(dataset) if isinstance(dataset, list | tuple) else (dataset, None)
            _refuse_both(labels, own)
            self._labels = self._by_output(own if labels is None else labels)
            self._open_pass, self.batch_size, self.known_samples = open_dataset(inputs, samples, batch_size)
            if self.known_samples is not None:
                self._check_number(self.known_samples)

    def __iter__(self) -> Iterator[LabelledBatch]:
        """One pass.

        Raises:
            DataError: an element does not fit, or there are more or fewer labels than samples.
        """
        with naming_evaluation():
            empty = True
            for joined in rebatch(self._pieces(), self.batch_size):
                empty = False
                inputs = {spec.name: joined[f"input {spec.name}"] for spec in self._inputs}
                labels = {name: joined[f"label {name}"] for name in self._outputs if f"label {name}" in joined}
                yield LabelledBatch(inputs, labels)
            if empty:
                raise DataError("the evaluation dataset is empty; give at least one sample, better a few hundred")

    def digest(self) -> str:
        """Hexadecimal digest of all samples and labels. Costs a pass."""
        digest = hashlib.sha256()
        for batch in self:
            for name, values in (*sorted(batch.inputs.items()), *sorted(batch.labels.items())):
                digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def _pieces(self) -> Iterator[Batch]:
        """Inputs and labels of each element, in one dict."""
        seen, named = 0, None
        for element in self._open_pass():
            samples, own = self._split(element)
            _refuse_both(self._labels or None, own)
            inputs = checked(self._inputs, samples)
            count = length_of(inputs)
            labels = {name: values[seen : seen + count] for name, values in self._labels.items()}
            if not labels and own is not None:
                single = _is_single(self._inputs[0], by_name(self._inputs, samples)[self._inputs[0].name])
                # Copies, as a stream may use one buffer for all elements.
                labels = {key: np.array(it[None] if single else it) for key, it in self._by_output(own).items()}
            seen += count
            _check_lengths(labels, count, seen)
            named = set(labels) if named is None else named
            if set(labels) != named:
                raise DataError("some elements of the evaluation dataset have labels, and others have none")
            yield {f"input {name}": it for name, it in inputs.items()} | {f"label {k}": it for k, it in labels.items()}
        self._check_number(seen)

    def _check_number(self, samples: int) -> None:
        for name, values in self._labels.items():
            if len(values) != samples:
                raise DataError(f"there are {len(values)} labels of output {name!r} for {samples} samples")

    def _split(self, element: Any) -> tuple[Any, Any]:
        """Inputs and labels of a dataset or of one of its elements, by the rule of ``data.checks.by_name``."""
        several = len(self._inputs) > 1
        labelled = isinstance(element, tuple) and len(element) > 1 and not isinstance(element[0], str)
        if labelled and several:
            labelled = isinstance(element[0], list | tuple | dict)  # else one array for each input
        if labelled and len(element) > 2 and element[2] is not None:
            raise DataError("the evaluation dataset has sample weights, which no metric reads; give (inputs, labels)")
        samples, labels = element[:2] if labelled else (element, None)
        if several and not self._in_order and isinstance(samples, list | tuple) and not isinstance(samples[0], str):
            names = ", ".join(spec.name for spec in self._inputs)
            raise DataError(f"the order of the inputs is not known; give samples as a dict with the keys {names}")
        return samples, labels

    def _by_output(self, labels: Any) -> Batch:
        """Labels by the name of the output that they are for."""
        if labels is None or not self._outputs:
            return {}
        if isinstance(labels, dict):
            unknown = sorted(set(map(str, labels)) - set(self._outputs))
            if unknown or not labels:
                raise DataError(
                    f"labels by name: {', '.join(map(repr, unknown)) or 'nothing'} is no output; the outputs are "
                    f"{', '.join(self._outputs)}"
                )
            return {name: _as_labels(name, values) for name, values in labels.items()}
        if len(self._outputs) == 1:
            return {self._outputs[0]: _as_labels(self._outputs[0], labels)}
        if isinstance(labels, list | tuple) and len(labels) == len(self._outputs) and _are_numbered(self._outputs):
            return {name: _as_labels(name, values) for name, values in zip(self._outputs, labels, strict=True)}
        raise DataError(
            f"there are {len(self._outputs)} outputs ({', '.join(self._outputs)}): give labels as a dict by output name"
        )


def _refuse_both(labels: Any, own: Any) -> None:
    if labels is not None and own is not None:
        raise DataError("labels are given twice: in the dataset, and beside it; leave one of them out")


def _as_labels(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"the labels of output {name!r} are no array ({error})") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"the labels of output {name!r} are {array.dtype}; encode them as numbers, such as classes")
    return array


def _is_single(spec: InputSpec, values: Any) -> bool:
    """Whether an element of a stream is one sample without the batch axis; grey images may lack their last axis."""
    shape, rank = np.shape(values), len(spec.shape)
    batched = len(shape) - 1 == rank or (spec.shape[-1:] == (1,) and len(shape) == rank and shape[:1] == (1,))
    return not batched


def _check_lengths(labels: Batch, count: int, seen: int) -> None:
    for name, values in labels.items():
        if values.ndim == 0 or len(values) != count:
            found = len(values) if values.ndim else "no"
            raise DataError(f"there are {found} labels of output {name!r} for the {count} samples up to number {seen}")


def _in_order_of_keras(names: Sequence[str]) -> tuple[str, ...]:
    """Names of outputs in the order of the Keras model: ``output_10`` behind ``output_9``."""
    numbered = _are_numbered(names)
    return tuple(sorted(names, key=lambda name: int(name.removeprefix("output_"))) if numbered else names)


def _are_numbered(names: Sequence[str]) -> bool:
    return all(name.removeprefix("output_").isdigit() for name in names)
