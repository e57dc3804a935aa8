"""Check a ``.tflite`` file against its block metadata (``docs/format.md``).

First the file itself: every offset, index and constant (``model_reader``). Then, for each described weight, that the
tensor is the one described, that its codes divide by the multipliers of the layout and lie in the range of their
width, that zero points are 0, that the scales in the tensor's quantization parameters are those of the metadata bit
for bit, and that each int32 bias on top has the scale ``s_x * s_w``.
"""

import json
import os
from dataclasses import asdict, dataclass

import numpy as np

from tfptq.base.text import counted
from tfptq.ops.table import spec_of
from tfptq.tflite.metadata import FormatError, TensorBlocks, load_bytes, metadata_of
from tfptq.tflite.model_reader import Model, Operator, Subgraph, Tensor, read_model
from tfptq.tflite.stored_codes import described_tensor, stored_codes

#: How many times the size of the file all described weights together may have; tensors may share a buffer.
_MOST_SHARING = 16


class VerificationError(ValueError):
    """A file does not agree with its block metadata. The message names the tensor."""


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
    """Check a file against its block metadata.

    Args:
        file: the file as bytes, or its path.

    Returns:
        The checks that were made.

    Raises:
        FormatError: the file or its metadata is damaged, or the metadata is too new.
        VerificationError: the file carries no block metadata, or disagrees with it.
        OSError: the path cannot be read.
    """
    data = load_bytes(file)
    model = read_model(data)
    metadata = metadata_of(model)
    if metadata is None:
        raise VerificationError("the file carries no block metadata (TFPTQ_BLOCKS)")
    checks, size = [], 0
    for blocks in metadata.tensors:
        try:
            tensor = described_tensor(blocks, model)
            size += tensor.data.size
            if size > _MOST_SHARING * len(data):
                raise FormatError(f"layer {blocks.layer!r}: too many tensors share the bytes of {tensor.name!r}")
            stored_codes(blocks, model)
        except FormatError as error:
            raise VerificationError(str(error)) from error
        checks.append(Check(tensor.name, f"{blocks.layout} tensor with {blocks.bits}-bit codes"))
        checks.append(Check(tensor.name, _check_scales(blocks, tensor, model)))
        checks.extend(Check(tensor.name, statement) for statement in _check_biases(blocks, tensor, model))
    return Verification(tuple(checks))


def _require(holds: bool, tensor: Tensor, problem: str) -> None:
    if not holds:
        raise VerificationError(f"tensor {tensor.name!r}: {problem}")


def _check_scales(blocks: TensorBlocks, tensor: Tensor, model: Model) -> str:
    """Compare the scales in the file with those of the metadata; returns what holds."""
    _require(not tensor.zero_point.any(), tensor, "a zero point is not 0")
    if blocks.layout == "float32":
        with np.errstate(all="ignore"):
            expected = (blocks.codes * _scale_per_weight(blocks)).astype(np.float32)
        _require(np.array_equal(tensor.values(), expected), tensor, "the values are not codes times scales")
        return "values are codes times scales"
    if blocks.layout == "native":
        return _check_native_scales(blocks, tensor, model.subgraphs[blocks.subgraph])
    if blocks.layout in ("inline", "composite"):
        return _check_unpacked_scales(blocks, tensor, model.subgraphs[blocks.subgraph])
    expected = blocks.row_scales()
    rows = counted(blocks.outputs, "row")
    _require(tensor.scale.size in (1, blocks.outputs), tensor, f"{counted(tensor.scale.size, 'scale')} for {rows}")
    if tensor.scale.size > 1:
        axis = tensor.quantized_dimension
        _require(axis == blocks.output_axis, tensor, f"scales along axis {axis}, expected {blocks.output_axis}")
    differ = np.flatnonzero(_bits(np.broadcast_to(tensor.scale, expected.shape)) != _bits(expected))
    if differ.size:
        channel = int(differ[0])
        found = tensor.scale[channel % tensor.scale.size]
        number = f"{counted(differ.size, 'scale')} {'differs' if differ.size == 1 else 'differ'} from the metadata"
        raise VerificationError(
            f"tensor {tensor.name!r}: {number}, the first in output channel {channel}: {found!s} in the file, "
            f"{expected[channel]!s} by the metadata"
        )
    return _equal(tensor.scale.size, "scale")


def _equal(count: int, noun: str) -> str:
    return f"{counted(count, noun)} {'equals' if count == 1 else 'equal'} the metadata"


def _bits(values: np.ndarray) -> np.ndarray:
    """Bit patterns of float32 values, which unlike the values can be compared whatever they are."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def _scale_per_weight(blocks: TensorBlocks) -> np.ndarray:
    """float32 scale of every weight, in ``blocks.shape``. Call it after the shape was compared with the file."""
    return blocks.view.from_view(blocks.scales().expand(blocks.outputs, blocks.inputs))


def _check_native_scales(blocks: TensorBlocks, tensor: Tensor, graph: Subgraph) -> str:
    _require(tensor.blockwise is not None, tensor, "the layout native needs BlockwiseQuantization")
    scales, size = graph.tensors[tensor.blockwise[0]], tensor.blockwise[1]
    _require(size == blocks.block_shape[1], tensor, f"block size {size}, expected {blocks.block_shape[1]}")
    rows = np.repeat(blocks.scales().values(), blocks.block_shape[0], axis=0)[: blocks.outputs]  # [O, H]
    fits = scales.type == "FLOAT16" and scales.data is not None and scales.shape == rows.shape
    _require(fits, tensor, f"the block scales {scales.name!r} are no float16 constant of shape {rows.shape}")
    same = np.array_equal(scales.values().astype(np.float32), rows)
    _require(same, tensor, "the block scales differ from the metadata")
    return _equal(rows.size, "block scale")


def _check_unpacked_scales(blocks: TensorBlocks, tensor: Tensor, graph: Subgraph) -> str:
    """Scale of the tensor times the constant of the MUL behind its DEQUANTIZE."""
    _require(tensor.scale.size == 1, tensor, f"{tensor.scale.size} scales, expected one for the whole tensor")
    dequantize = _reader(graph, blocks.tensor, "DEQUANTIZE", tensor)
    multiply = _reader(graph, dequantize.outputs[0], "MUL", tensor)
    constants = [graph.tensors[at] for at in multiply.inputs if at >= 0 and graph.tensors[at].data is not None]
    _require(len(constants) == 1 and constants[0].type == "FLOAT32", tensor, "the MUL has no float32 constant")
    unpacked = graph.tensors[dequantize.outputs[0]].shape
    factor = constants[0].values()
    aligned = factor.ndim <= len(unpacked) and all(
        size in (1, full) for size, full in zip(factor.shape[::-1], unpacked[::-1], strict=False)
    )
    same_size = int(np.prod(unpacked, dtype=object)) == int(np.prod(tensor.shape, dtype=object))
    _require(aligned and same_size, tensor, f"scales {factor.shape} do not broadcast over {unpacked}")
    with np.errstate(all="ignore"):
        found = np.broadcast_to(factor * tensor.scale[0], unpacked).reshape(blocks.shape)
    expected = _scale_per_weight(blocks)
    _require(np.array_equal(found, expected), tensor, "the block scales differ from the metadata")
    return _equal(factor.size, "block scale")


def _reader(graph: Subgraph, index: int, kind: str, tensor: Tensor) -> Operator:
    found = [operator for operator in graph.consumers.get(index, []) if operator.kind == kind]
    _require(len(found) == 1 and bool(found[0].outputs), tensor, f"expected one {kind} to read it, found {len(found)}")
    return found[0]


def _check_biases(blocks: TensorBlocks, kernel: Tensor, model: Model) -> list[str]:
    """Compare the bias scale of every integer operator that reads a kernel with ``s_x * s_w``."""
    if blocks.layout not in ("int8", "int4"):
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
    _require(
        bias.type == wanted and bias.data is not None, bias, f"the bias is {bias.type}, expected {wanted} constant"
    )
    _require(not bias.zero_point.any(), bias, "a zero point is not 0")
    _require(source.scale.size == 1, source, f"{source.scale.size} scales in an activation, expected one")
    with np.errstate(all="ignore"):
        expected = source.scale * kernel.scale  # float32, like s_x * s_w in the specification
    same = bias.scale.shape == expected.shape and np.array_equal(_bits(bias.scale), _bits(expected))
    _require(same, bias, f"the bias scales are not those of {source.name!r} times those of {kernel.name!r}")
