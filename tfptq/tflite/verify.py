"""Check a ``.tflite`` file against its block metadata (``docs/format.md``).

First the file itself: every offset, index and constant (``model_reader``). Then, for each described weight, that the
tensor is the one described (by a checksum, or by name and shape in version 1), that its codes divide by the multipliers
of the layout and lie in the range of their width, that zero points are 0, that the scales in the tensor's quantization
parameters are those of the metadata bit for bit, and that each int32 bias on top has the scale ``s_x * s_w``.
"""

import json
import os
from dataclasses import asdict, dataclass

import numpy as np

from tfptq.base.text import counted
from tfptq.ops.table import spec_of
from tfptq.tflite.checks import VerificationError, float_bits, require
from tfptq.tflite.layouts import Computes
from tfptq.tflite.metadata import FormatError, TensorBlocks, load_bytes, metadata_of
from tfptq.tflite.model_reader import Model, Operator, Tensor, read_model
from tfptq.tflite.stored_codes import described_tensor, stored_codes

#: How many times the size of the file all described weights together may have; tensors may share a buffer.
_MOST_SHARING = 16


@dataclass(frozen=True)
class Check:
    """Something that was checked and holds.

    Attributes:
        tensor: name of the tensor.
        statement: what holds.
    """

    tensor: str
    statement: str


@dataclass(frozen=True)
class Verification:
    """Everything that was checked; a failure raises instead."""

    checks: tuple[Check, ...]

    def to_json(self, indent: int | None = 2) -> str:
        """All of it as JSON text."""
        return json.dumps(asdict(self), indent=indent)

    def render(self) -> str:
        """One line for each tensor, and how many there are."""
        statements: dict[str, list[str]] = {}
        for check in self.checks:
            statements.setdefault(check.tensor, []).append(check.statement)
        lines = [f"{tensor}: {', '.join(found)}" for tensor, found in statements.items()]
        return "\n".join([*lines, f"{counted(len(lines), 'tensor')} verified"])


def verify(file: bytes | str | os.PathLike) -> Verification:
    """Check a file, given as bytes or path, against its block metadata.

    Raises:
        FormatError: the file or its metadata is damaged, or the metadata is too new.
        VerificationError: the file carries no block metadata, or disagrees with it.
        OSError: the path cannot be read.
    """
    data = load_bytes(file)
    model = read_model(data)
    metadata = metadata_of(model)
    if metadata is None:
        raise VerificationError(
            "the file carries no block metadata (TFPTQ_BLOCKS), so there is nothing to compare it with; files of tfptq "
            "carry it unless they were made with metadata='none'"
        )
    checks, size = [], 0
    for blocks in metadata.tensors:
        try:
            tensor = described_tensor(blocks, model)
            size += tensor.stored_bytes
            if size > _MOST_SHARING * len(data):
                raise FormatError(f"layer {blocks.layer!r}: too many tensors share the bytes of {tensor.name!r}")
            stored_codes(blocks, model)
        except FormatError as error:
            raise VerificationError(str(error)) from error
        checks.append(Check(tensor.name, f"{blocks.layout.name} tensor with {blocks.bits}-bit codes"))
        checks.append(Check(tensor.name, _check_scales(blocks, tensor, model)))
        checks.extend(Check(tensor.name, statement) for statement in _check_biases(blocks, tensor, model))
    return Verification(tuple(checks))


def _check_scales(blocks: TensorBlocks, tensor: Tensor, model: Model) -> str:
    """Compare the scales in the file with those of the metadata; returns what holds."""
    require(not tensor.zero_point.any(), tensor, "a zero point is not 0")
    return blocks.layout.check(blocks, tensor, model.subgraphs[blocks.subgraph])


def _check_biases(blocks: TensorBlocks, kernel: Tensor, model: Model) -> list[str]:
    """Compare the bias scale of every integer operator that reads a kernel with ``s_x * s_w``."""
    if blocks.layout.computes is not Computes.INTEGER:
        return []
    graph, statements = model.subgraphs[blocks.subgraph], []
    for operator in graph.consumers.get(blocks.tensor, []):
        spec = spec_of(operator.kind)
        if spec.kernel is None:
            continue
        at, bias, source = (_input(operator, place) for place in spec.weights)
        if at != blocks.tensor or bias < 0 or source < 0 or graph.tensors[source].type not in ("INT8", "INT16"):
            continue
        _check_bias(graph.tensors[bias], graph.tensors[source], kernel)
        statements.append(f"bias {graph.tensors[bias].name!r} has the scale of input times weight")
    return statements


def _input(operator: Operator, place: int) -> int:
    return operator.inputs[place] if place < len(operator.inputs) else -1


def _check_bias(bias: Tensor, source: Tensor, kernel: Tensor) -> None:
    wanted = "INT64" if source.type == "INT16" else "INT32"
    require(bias.type == wanted and bias.data is not None, bias, f"the bias is {bias.type}, expected {wanted} constant")
    require(not bias.zero_point.any(), bias, "a zero point is not 0")
    require(source.scale.size == 1, source, f"{source.scale.size} scales in an activation, expected one")
    with np.errstate(all="ignore"):
        expected = source.scale * kernel.scale  # float32, like s_x * s_w in the specification
    same = bias.scale.shape == expected.shape and np.array_equal(float_bits(bias.scale), float_bits(expected))
    require(same, bias, f"the bias scales are not those of {source.name!r} times those of {kernel.name!r}")
