"""A float file in the place of a Keras model: of sources whose Keras graph is not known, or that have none.

The file is the graph: what follows conversion works on it as on the file of any Keras model, and what needs Keras
layers finds none.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfptq.data.checks import InputSpec
from tfptq.float_file.channel_affines import affines_as_depthwise
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.foreign_file import main_signature, read_float_model
from tfptq.float_file.matching import WeightFinder, find_kernels
from tfptq.float_file.simplify import simplify
from tfptq.tflite.model import NUMPY_TYPES, TFLiteModel
from tfptq.tflite.runtime import TensorRunner

Batch = Mapping[str, np.ndarray]
#: Types of inputs that calibration data can have.
_INPUT_TYPES = (np.float32, np.int32, np.int64, np.int8, np.uint8, np.bool_)


@dataclass(frozen=True)
class FileInput:
    """An input: its name, its shape with the batch axis, None for open sizes, and its type, as those of Keras."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class FileModel:
    """What stands for the Keras model where the float file is the graph.

    Attributes:
        name: for messages and the report.
        float_file: the file, with its kernels found.
        inputs: in the order that users give samples in.
        run: batch by input name -> outputs of what the file was made of, to compare with.
        reason: why no Keras graph is known.
        layers: none; Keras models have some.
    """

    name: str
    float_file: FloatFile
    inputs: tuple[FileInput, ...]
    run: Callable[[Batch], list[np.ndarray]]
    reason: str
    layers: tuple[Any, ...] = ()

    def with_file(self, float_file: FloatFile) -> "FileModel":
        """The same with another float file of the same function."""
        return replace(self, float_file=float_file)

    def outputs(self, batch: Batch) -> list[np.ndarray]:
        """What the float file computes; batch by input name."""
        runner = TensorRunner(self.float_file.data, self.float_file.outputs)
        found = runner.values_in_parts(self.float_file.by_tensor_name(batch), self.float_file.batch_size)
        return [found[index] for index in self.float_file.outputs]

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """What calibration data must be."""
        return tuple(InputSpec(each.name, each.shape[1:], each.dtype) for each in self.inputs)


def tflite_model(source: bytes | str | os.PathLike, signature: str | None = None) -> FileModel:
    """A float ``.tflite`` file, from its path or its bytes.

    Args:
        source: the file.
        signature: key of the signature to take; the first by default.

    Raises:
        ValueError: no float ``.tflite`` file that LiteRT can run, or no such signature.
        FileNotFoundError: no file at the path.
    """
    data, name = (source, "model") if isinstance(source, bytes) else _read(Path(source))
    model = read_float_model(data, name, signature)
    whole = model.to_bytes()
    _check_runs(whole, name)
    inputs = inputs_of(model, name)
    tensors = {each.name: model.name(index) for each, index in zip(inputs, model.subgraph.inputs, strict=True)}
    outputs, batch_size = list(model.subgraph.outputs), inputs[0].shape[0]

    def run(batch: Batch) -> list[np.ndarray]:
        named = {tensors[key]: values for key, values in batch.items()}
        found = TensorRunner(whole, outputs).values_in_parts(named, batch_size)
        return [found[index] for index in outputs]

    return of_file(name, model, inputs, run, "a .tflite file has no Keras graph")


def of_file(
    name: str,
    model: TFLiteModel,
    inputs: tuple[FileInput, ...],
    run: Callable[[Batch], list[np.ndarray]],
    reason: str,
) -> FileModel:
    """Simplify a float model, in place, and find its kernels; ``inputs`` are in the order of its input tensors."""
    simplify(model)
    affines_as_depthwise(model)
    kernels = find_kernels(model, WeightFinder({}), {})
    named = {each.name: index for each, index in zip(inputs, model.subgraph.inputs, strict=True)}
    float_file = FloatFile(model.to_bytes(), model, kernels, named, tuple(model.subgraph.outputs))
    return FileModel(name, float_file, inputs, run, reason)


def inputs_of(model: TFLiteModel, name: str) -> tuple[FileInput, ...]:
    """The inputs of a file, in its order, under the names of its signature, or else of the tensors.

    Raises:
        ValueError: one has no batch axis, another batch than the others, or a type that no samples have.
    """
    signature = main_signature(model)
    named = {} if signature is None else {entry.tensorIndex: entry.name.decode() for entry in signature.inputs}
    found = []
    for index in model.subgraph.inputs:
        label = named.get(index) or model.name(index).removeprefix("serving_default_").removesuffix(":0")
        dtype = NUMPY_TYPES.get(model.tensors[index].type)
        if dtype not in _INPUT_TYPES:
            raise ValueError(
                f"input {label!r} of {name} has a type that calibration data cannot have; inputs must be float32, "
                "integers or booleans"
            )
        shape = tuple(None if size == -1 else size for size in model.sizes(index))
        if not shape:
            raise ValueError(
                f"input {label!r} of {name} is a single number without a batch axis; convert the model again with the "
                "number as a constant, or with inputs of the shape [batch, ...]"
            )
        found.append(FileInput(label, shape, np.dtype(dtype).name))
    batches = {each.shape[0] for each in found}
    if len(batches) > 1:
        listed = ", ".join(f"{each.name!r} {list(each.shape)}" for each in found)
        raise ValueError(
            f"the inputs of {name} have different first sizes: {listed}; the first axis of all must be the batch: "
            "convert the model again with such inputs"
        )
    return tuple(found)


def _read(path: Path) -> tuple[bytes, str]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    return path.read_bytes(), path.name


def _check_runs(data: bytes, name: str) -> None:
    """Refuse a file that LiteRT does not run, such as one with operators of TensorFlow (a ValueError)."""
    try:
        Interpreter(model_content=data).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().rstrip(".")
        raise ValueError(
            f"LiteRT cannot run {name}: {reason}. Files with operators of TensorFlow (Flex) or of your own cannot be "
            "measured; convert the model again with built-in operators only"
        ) from error
