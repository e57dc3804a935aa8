"""Read a ``.tflite`` file that nobody has vouched for.

Only what inspection, verification and the NPU executor need is read, but all of that is checked: a ``Model`` has no
index that leads outside, and every constant has as many bytes as its shape and type ask for.
The schema below lists the fields read, with their places in LiteRT's schema (``schema.fbs``, version 3).
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from types import SimpleNamespace

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.schema import Schema, parse_schema

_SCHEMA_TEXT = """
file_identifier "TFL3";
root_type Model;
table Model {
  version:uint; operator_codes:[OperatorCode]; subgraphs:[SubGraph]; description:string; buffers:[Buffer];
  metadata:[Metadata] (id: 6);
}
table Metadata { name:string; buffer:uint; }
table Buffer { data:[ubyte]; offset:ulong; size:ulong; }
table OperatorCode { deprecated_builtin_code:byte; custom_code:string; version:int = 1; builtin_code:int; }
table SubGraph { tensors:[Tensor]; inputs:[int]; outputs:[int]; operators:[Operator]; name:string; }
table Tensor { shape:[int]; type:byte; buffer:uint; name:string; quantization:QuantizationParameters; }
table QuantizationParameters {
  scale:[float] (id: 2); zero_point:[long]; details:QuantizationDetails (id: 5); quantized_dimension:int;
}
union QuantizationDetails { BlockwiseQuantization = 2 }
table BlockwiseQuantization { scales:int; zero_points:int; block_size:int; }
table Operator { opcode_index:uint; inputs:[int]; outputs:[int]; options:BuiltinOptions (id: 4); }
union BuiltinOptions {
  Conv2DOptions = 1, DepthwiseConv2DOptions = 2, FullyConnectedOptions = 8, TransposeConvOptions = 49
}
table Conv2DOptions {
  padding:byte; stride_w:int; stride_h:int; fused_activation_function:byte;
  dilation_w_factor:int = 1; dilation_h_factor:int = 1;
}
table DepthwiseConv2DOptions {
  padding:byte; stride_w:int; stride_h:int; depth_multiplier:int; fused_activation_function:byte;
  dilation_w_factor:int = 1; dilation_h_factor:int = 1;
}
table FullyConnectedOptions { fused_activation_function:byte; }
table TransposeConvOptions { padding:byte; stride_w:int; stride_h:int; fused_activation_function:byte; }
"""


def enumeration_names(enumeration: type) -> dict[int, str]:
    """Number -> name of the members of an enumeration in LiteRT's generated schema."""
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


TYPE_NAMES = enumeration_names(tflite.TensorType)
OPERATOR_NAMES = enumeration_names(tflite.BuiltinOperator)
#: Bits of one element, for the types whose constants we check. INT4 and INT2 codes share bytes, low bits first.
TYPE_BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "INT32": 32, "UINT8": 8, "INT64": 64, "BOOL": 8, "INT16": 16, "INT8": 8,
    "FLOAT64": 64, "UINT64": 64, "UINT32": 32, "UINT16": 16, "INT4": 4, "INT2": 2, "UINT4": 4, "BFLOAT16": 16,
}  # fmt: skip
_NUMPY = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "INT64": "<i8", "INT16": "<i2", "INT8": "i1"}


@cache
def _model_schema() -> Schema:
    return parse_schema(_SCHEMA_TEXT)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: its name.
        shape: its shape; () for a scalar.
        type: ``"INT8"``, ``"FLOAT32"``, ...
        data: the bytes of a constant; None for a tensor computed at run time.
        scale: float32 scales of its quantization parameters; empty when not quantized.
        zero_point: int64 zero points, as many as scales.
        quantized_dimension: axis of the scales.
        blockwise: ``(tensor index of the scales, block size)`` of ``BlockwiseQuantization``, or None.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    data: np.ndarray | None
    scale: np.ndarray
    zero_point: np.ndarray
    quantized_dimension: int
    blockwise: tuple[int, int] | None

    @property
    def stored_bytes(self) -> int:
        """Size of the constant; 0 when it is none."""
        return 0 if self.data is None else int(self.data.size)

    def values(self) -> np.ndarray:
        """Elements of a constant in its shape; INT4 and INT2 come unpacked as int8.

        Raises:
            FormatError: not a constant, or of a type that is not read.
        """
        if self.data is None:
            raise FormatError(f"the tensor {self.name!r} is not a constant")
        if self.type in ("INT4", "INT2"):
            return unpack(self.data, TYPE_BITS[self.type], math.prod(self.shape)).reshape(self.shape)
        if self.type not in _NUMPY:
            raise FormatError(f"the constant {self.name!r} has the type {self.type}, which is not read here")
        return self.data.view(_NUMPY[self.type]).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator: kind, indexes of its tensors (-1: left out), options (None when not read)."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: SimpleNamespace | None


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A subgraph: tensors, operators in order of execution, and the indexes of its inputs and outputs."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """Tensor index -> operator that writes it."""
        return {index: operator for operator in self.operators for index in operator.outputs}

    @cached_property
    def consumers(self) -> dict[int, list[Operator]]:
        """Tensor index -> operators that read it."""
        readers: dict[int, list[Operator]] = {}
        for operator in self.operators:
            for index in dict.fromkeys(operator.inputs):
                readers.setdefault(index, []).append(operator)
        return readers


@dataclass(frozen=True, eq=False)
class Model:
    """A checked ``.tflite`` file: its subgraphs, buffers, pairs (metadata key, buffer index), and its bytes."""

    subgraphs: tuple[Subgraph, ...]
    buffers: tuple[np.ndarray, ...]
    metadata: tuple[tuple[str, int], ...]
    size: int


def read_model(file: bytes) -> Model:
    """Read a ``.tflite`` file.

    Raises:
        FormatError: the file is damaged or is not a ``.tflite`` file.
    """
    root = read_message(file, _model_schema())
    if root.version != 3:
        raise FormatError(f"the .tflite schema version is {root.version}; only 3 is known")
    if not root.subgraphs:
        raise FormatError("the file has no subgraph")
    buffers = tuple(_buffer_data(file, buffer) for buffer in root.buffers)
    kinds = [_operator_kind(code) for code in root.operator_codes]
    for entry in root.metadata:
        _check_indexes("buffers of the metadata", [entry.buffer], len(buffers))
    subgraphs = tuple(_subgraph(subgraph, buffers, kinds) for subgraph in root.subgraphs)
    return Model(subgraphs, buffers, tuple((entry.name, entry.buffer) for entry in root.metadata), len(file))


def _buffer_data(file: bytes, buffer: SimpleNamespace) -> np.ndarray:
    """Bytes of a buffer, which in large files lie behind the message at an offset."""
    if buffer.offset <= 1:
        return buffer.data
    if buffer.offset + buffer.size > len(file):
        raise FormatError(f"a buffer of {buffer.size} bytes at {buffer.offset} leaves the file")
    return np.frombuffer(file, np.uint8, buffer.size, buffer.offset)


def _operator_kind(code: SimpleNamespace) -> str:
    number = max(code.builtin_code, code.deprecated_builtin_code)
    kind = OPERATOR_NAMES.get(number, f"BUILTIN_{number}")
    return f"CUSTOM {code.custom_code}" if kind == "CUSTOM" else kind


def _check_indexes(what: str, indexes, count: int, lowest: int = 0) -> tuple[int, ...]:
    indexes = tuple(int(index) for index in indexes)
    for index in indexes:
        if not lowest <= index < count:
            raise FormatError(f"{what}: index {index} is outside of {count}")
    return indexes


def _subgraph(subgraph: SimpleNamespace, buffers: tuple, kinds: list[str]) -> Subgraph:
    tensors = tuple(_tensor(tensor, buffers) for tensor in subgraph.tensors)
    count = len(tensors)
    for tensor in tensors:
        if tensor.blockwise is not None:
            _check_indexes(f"block scales of {tensor.name!r}", tensor.blockwise[:1], count)
    operators = []
    for operator in subgraph.operators:
        _check_indexes("operator codes", [operator.opcode_index], len(kinds))
        kind = kinds[operator.opcode_index]
        inputs = _check_indexes(f"inputs of a {kind}", operator.inputs, count, lowest=-1)
        outputs = _check_indexes(f"outputs of a {kind}", operator.outputs, count)
        operators.append(Operator(kind, inputs, outputs, operator.options))
    inputs = _check_indexes("inputs of a subgraph", subgraph.inputs, count)
    outputs = _check_indexes("outputs of a subgraph", subgraph.outputs, count)
    return Subgraph(tensors, tuple(operators), inputs, outputs)


def _tensor(tensor: SimpleNamespace, buffers: tuple) -> Tensor:
    _check_indexes(f"buffers of the tensor {tensor.name!r}", [tensor.buffer], len(buffers))
    shape = tuple(int(size) for size in tensor.shape)
    if any(size < 0 for size in shape):
        raise FormatError(f"the tensor {tensor.name!r} has the shape {shape}")
    kind = TYPE_NAMES.get(tensor.type)
    if kind is None:
        raise FormatError(f"the tensor {tensor.name!r} has the unknown type {tensor.type}")
    data = buffers[tensor.buffer]
    data = data if data.size else None
    if data is not None and kind in TYPE_BITS:
        expected = -(-math.prod(shape) * TYPE_BITS[kind] // 8)
        if data.size != expected:
            raise FormatError(f"the constant {tensor.name!r} has {data.size} bytes; {kind} {shape} needs {expected}")
    return _with_quantization(tensor, shape, kind, data)


def _with_quantization(tensor: SimpleNamespace, shape: tuple, kind: str, data: np.ndarray | None) -> Tensor:
    found = tensor.quantization
    if found is None:
        return Tensor(tensor.name, shape, kind, data, np.zeros(0, "<f4"), np.zeros(0, "<i8"), 0, None)
    if found.zero_point.size not in (0, found.scale.size):
        raise FormatError(f"{tensor.name!r} has {found.scale.size} scales and {found.zero_point.size} zero points")
    if found.scale.size > 1:
        _check_indexes(f"quantized dimension of {tensor.name!r}", [found.quantized_dimension], len(shape))
        axis = found.quantized_dimension
        if shape[axis] != found.scale.size:
            raise FormatError(
                f"{tensor.name!r} of shape {shape} has {found.scale.size} scales along axis {axis}, whose size is "
                f"{shape[axis]}"
            )
    zeros = found.zero_point if found.zero_point.size else np.zeros(found.scale.size, "<i8")
    blockwise = None if found.details is None else (found.details.scales, found.details.block_size)
    return Tensor(tensor.name, shape, kind, data, found.scale, zeros, found.quantized_dimension, blockwise)


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Sign-extend packed codes of 2 or 4 bits to int8 ``[count]``; the first of a byte lies in its lowest bits."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)  # to the top of a byte, whose sign fills the way back
    return ((packed[:, None] << shifts).view(np.int8) >> (8 - bits)).reshape(-1)[:count]
