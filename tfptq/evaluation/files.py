"""What is evaluated: the bytes of a file, and those of the float model beside it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from tfptq.data.checks import Batch, InputSpec, input_specs
from tfptq.data.labelled import LabelledData
from tfptq.evaluation.runner import FileEnds, file_ends
from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.graph import canonicalise
from tfptq.graph.read_graph import UnknownGraphError, graph_of
from tfptq.prepare.load_model import load_model
from tfptq.prepare.sources import file_source, keras_file_model
from tfptq.tflite.metadata import load_bytes

#: Samples that a converted float model is checked on.
SAMPLES_TO_CHECK = 8


@runtime_checkable
class WithFile(Protocol):
    """A file, the float file that it was made of and, perhaps, a Keras model of it: a ``QuantizationResult``."""

    @property
    def tflite(self) -> bytes:
        """The file."""

    @property
    def float_tflite(self) -> bytes:
        """The float file."""

    @property
    def keras_model(self) -> keras.Model | None:
        """A Keras model with the same inputs, or None."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated, and what it is compared with.

    Attributes:
        content: the file.
        ends: its ends.
        model: the Keras model beside it, or None.
        float_content: the float file beside it, or None where there is none or ``model`` is yet to be converted.
    """

    content: bytes
    ends: FileEnds
    model: keras.Model | None
    float_content: bytes | None

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """What samples must be, in the order of the Keras model, and by its names too, where there is one."""
        if self.model is not None and _has_graph(self.model):
            return keras_specs(self.model, self.ends.specs)
        return tuple(sorted(self.ends.specs, key=lambda it: _number(it.name))) if self._numbered else self.ends.specs

    @property
    def in_order(self) -> bool:
        """Whether the order of ``specs`` is one that users know."""
        return self._numbered or (self.model is not None and _has_graph(self.model))

    @property
    def _numbered(self) -> bool:
        """Whether the inputs are called as those of a model that takes a list: ``input_0``, ``input_1``, ..."""
        return _are_numbered([spec.name for spec in self.ends.specs])


def subject_of(file: Any, model: Any) -> Subject:
    """Read what users pass as file and as model.

    Args:
        file: a file as path or bytes, or what holds one.
        model: what ``tfptq.quantize`` takes, or None.

    Raises:
        TypeError: no file.
        ValueError: a file or the model cannot be read.
        OSError: a path cannot be read.
    """
    if not isinstance(file, bytes | str | os.PathLike | WithFile):
        raise TypeError(f"file is a {type(file).__name__}; pass a path, the bytes of a .tflite file, or a result")
    content = file.tflite if isinstance(file, WithFile) else load_bytes(file)
    ends = file_ends(content)
    if model is None and isinstance(file, WithFile):
        return Subject(content, ends, file.keras_model, file.float_tflite)
    if isinstance(model, bytes) or (isinstance(model, str | os.PathLike) and Path(model).suffix == ".tflite"):
        return Subject(content, ends, None, load_bytes(model))
    if model is None:
        return Subject(content, ends, None, None)
    found = file_source(model, None, None)
    if found is not None:
        return Subject(content, ends, None, found.float_file.data)
    return Subject(content, ends, load_model(model), None)


def _has_graph(model: keras.Model) -> bool:
    try:
        graph_of(model)
    except UnknownGraphError:
        return False
    return True


def keras_specs(model: keras.Model, specs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
    """Those of a file in the order of a Keras model, under whose names samples may go, too."""
    known = {_plain(spec.name): spec for spec in specs}
    wanted = input_specs(model)
    if len(wanted) != len(specs):
        raise ValueError(f"the file has {len(specs)} inputs, and the model {len(wanted)}: it is another model")
    if len(specs) > 1 and {_plain(spec.name) for spec in wanted} != set(known):
        theirs, mine = (", ".join(spec.name for spec in it) for it in (wanted, specs))
        raise ValueError(f"the file has the inputs {mine}, and the model {theirs}: it is another model")
    matched = [known[_plain(spec.name)] if len(specs) > 1 else specs[0] for spec in wanted]
    return tuple(replace(mine, key=spec.key or spec.name) for mine, spec in zip(matched, wanted, strict=True))


def _plain(name: str) -> str:
    """A name as TensorFlow may have changed it."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()


def float_file_of(model: keras.Model, samples: Batch) -> bytes:
    """The float ``.tflite`` of a Keras model, checked on some samples, which are in the order of its inputs.

    Raises:
        ValueError: the model cannot be used or converted, or its file computes something else; the message says why.
    """
    try:
        canonical = canonicalise(model)
    except UnknownGraphError as error:
        return keras_file_model(model, _as_passed(samples), str(error)).float_file.data
    float_file = make_float_file(canonical, {})
    named = {tensor.name: values for tensor, values in zip(canonical.inputs, samples.values(), strict=True)}
    check_float_file(float_file, model, one_batch(named, canonical.inputs[0].shape[0] or SAMPLES_TO_CHECK))
    return float_file.data


def _as_passed(samples: Batch) -> Any:
    """Samples as a model takes them whose file has inputs of these names: ``input_0``, ... are those of a list."""
    if len(samples) == 1:
        return next(iter(samples.values()))
    return [samples[name] for name in sorted(samples, key=_number)] if _are_numbered(list(samples)) else dict(samples)


def _are_numbered(names: Sequence[str]) -> bool:
    return set(names) == {f"input_{number}" for number in range(len(names))}


def _number(name: str) -> int:
    return int(name.removeprefix("input_"))


def float_reference(model: keras.Model, dataset: Any) -> bytes:
    """The float ``.tflite`` of a Keras model, checked on some samples; for errors see ``float_file_of``."""
    return float_file_of(model, next(iter(LabelledData(input_specs(model), (), dataset))).inputs)


def matched_inputs(ends: FileEnds, others: FileEnds) -> list[str]:
    """For each input of another file, the name of the input of the first one that it reads the same samples as.

    Raises:
        ValueError: the files have different inputs.
    """
    mine, theirs = ([row.name for row in it.inputs] for it in (ends, others))
    if len(mine) != len(theirs):
        raise ValueError(f"the file has {len(mine)} inputs, and the float model {len(theirs)}: it is another model")
    return theirs if set(mine) == set(theirs) else mine


def matched_outputs(ends: FileEnds, others: FileEnds) -> list[int]:
    """For each output of a file, the position in another file of the output that it stands for.

    Raises:
        ValueError: the files have different numbers of outputs.
    """
    mine, theirs = ([row.name for row in it.outputs] for it in (ends, others))
    if len(mine) != len(theirs):
        raise ValueError(f"the file has {len(mine)} outputs, and the float model {len(theirs)}: it is another model")
    return [theirs.index(name) for name in mine] if set(mine) == set(theirs) else list(range(len(mine)))


def one_batch(samples: Batch, size: int) -> Batch:
    """``size`` of some samples, repeated in turn where there are fewer."""
    return {name: values[np.arange(size) % len(values)] for name, values in samples.items()}
