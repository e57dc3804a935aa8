"""Read a ``.tflite`` file that nobody has vouched for.

Only what inspection, verification and the NPU executor need is read (``model.fbs``), but all of that is checked: a
``Model`` has no index that leads outside, and every constant has as many bytes as its shape and type ask for. Time and
memory are linear in the size of the file. ``cpp/tfptq/model_checks.h`` checks the same.
"""

import math
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tfptq.base.text import quoted
from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.model_parts import MOST_AXES, TYPE_BITS, Blockwise, Model, Operator, Signature, Subgraph, Tensor
from tfptq.tflite.schema import Schema, own_schema


def enumeration_names(enumeration: type) -> dict[int, str]:
    """Number -> name of the members of an enumeration in LiteRT's generated schema."""
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


OPERATOR_NAMES = enumeration_names(tflite.BuiltinOperator)


def model_schema() -> Schema:
    """The parsed ``model.fbs``."""
    return own_schema("model.fbs")


TYPE_NUMBERS = model_schema().enums["TensorType"][1]
TYPE_NAMES = {number: name for name, number in TYPE_NUMBERS.items()}

#: Kind of operator -> its table of options.
_OPTIONS = {
    "CALL": "CallOptions",
    "CALL_ONCE": "CallOnceOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "IF": "IfOptions",
    "MUL": "MulOptions",
    "RESHAPE": "ReshapeOptions",
    "STABLEHLO_COMPOSITE": "StableHLOCompositeOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "WHILE": "WhileOptions",
}


def read_model(file: bytes) -> Model:
    """Read a ``.tflite`` file.

    Raises:
        FormatError: the file is damaged or is not a ``.tflite`` file.
    """
    root = read_message(file, model_schema())
    if root.version != 3:
        raise FormatError(f"the .tflite schema version is {root.version}; only 3 is known")
    if not root.subgraphs:
        raise FormatError("the file has no subgraph")
    buffers = tuple(_buffer_data(file, buffer) for buffer in root.buffers)
    codes = [_operator_code(code) for code in root.operator_codes]
    _check_indexes([entry.buffer for entry in root.metadata], len(buffers), "buffers of the metadata")
    subgraphs = tuple(_subgraph(subgraph, buffers, codes) for subgraph in root.subgraphs)
    metadata = tuple((entry.name, entry.buffer) for entry in root.metadata)
    signatures = tuple(_signature(entry, subgraphs) for entry in root.signature_defs)
    return Model(subgraphs, buffers, metadata, signatures, len(file))


def _buffer_data(file: bytes, buffer: SimpleNamespace) -> np.ndarray:
    """Bytes of a buffer, which in large files lie behind the message at an offset."""
    if buffer.offset <= 1:
        return buffer.data
    if buffer.offset + buffer.size > len(file):
        raise FormatError(f"a buffer of {buffer.size} bytes at {buffer.offset} leaves the file")
    return np.frombuffer(file, np.uint8, buffer.size, buffer.offset)


def _operator_code(code: SimpleNamespace) -> tuple[int, str, str]:
    """``(number, kind, custom code)``."""
    number = max(code.builtin_code, code.deprecated_builtin_code)
    kind = OPERATOR_NAMES.get(number, f"BUILTIN_{number}")
    return (number, f"CUSTOM {code.custom_code}", code.custom_code) if kind == "CUSTOM" else (number, kind, "")


def _check_indexes(indexes: Iterable[int], count: int, what: str, name: str = "", lowest: int = 0) -> tuple[int, ...]:
    """Indexes, none of them outside; ``what`` and ``name`` are for the message, which few files need."""
    indexes = tuple(indexes)
    if indexes and (min(indexes) < lowest or max(indexes) >= count):
        index = next(index for index in indexes if not lowest <= index < count)
        raise FormatError(f"{f'{what} {quoted(name)}' if name else what}: index {index} is outside of {count}")
    return indexes


def _subgraph(subgraph: SimpleNamespace, buffers: tuple, codes: list[tuple[int, str, str]]) -> Subgraph:
    tensors = tuple(_tensor(tensor, buffers) for tensor in subgraph.tensors)
    count = len(tensors)
    for tensor in tensors:
        if tensor.blockwise is not None:
            _check_indexes([tensor.blockwise.scales], count, "block scales of", tensor.name)
    operators = []
    for operator in subgraph.operators:
        _check_indexes([operator.opcode_index], len(codes), "operator codes")
        number, kind, custom_code = codes[operator.opcode_index]
        inputs = _check_indexes(operator.inputs.tolist(), count, "inputs of a", kind, lowest=-1)
        outputs = _check_indexes(operator.outputs.tolist(), count, "outputs of a", kind)
        operators.append(Operator(kind, number, custom_code, inputs, outputs, _options(kind, operator)))
    inputs = _check_indexes(subgraph.inputs.tolist(), count, "inputs of a subgraph")
    outputs = _check_indexes(subgraph.outputs.tolist(), count, "outputs of a subgraph")
    return Subgraph(tensors, tuple(operators), inputs, outputs)


def _options(kind: str, operator: SimpleNamespace) -> SimpleNamespace | None:
    """The options if they are those of the kind; runtimes ignore others."""
    found = operator.options_2 if kind == "STABLEHLO_COMPOSITE" else operator.options
    return found if found is not None and found.table == _OPTIONS.get(kind) else None


def _signature(entry: SimpleNamespace, subgraphs: tuple[Subgraph, ...]) -> Signature:
    _check_indexes([entry.subgraph_index], len(subgraphs), "subgraphs of signatures")
    count = len(subgraphs[entry.subgraph_index].tensors)
    ends = []
    for names in (entry.inputs, entry.outputs):
        _check_indexes([name.tensor_index for name in names], count, "tensors of a signature")
        ends.append(tuple((name.tensor_index, name.name) for name in names))
    return Signature(entry.subgraph_index, *ends)


def _tensor(tensor: SimpleNamespace, buffers: tuple) -> Tensor:
    _check_indexes([tensor.buffer], len(buffers), "buffers of the tensor", tensor.name)
    kind = TYPE_NAMES.get(tensor.type)
    if kind is None:
        raise FormatError(f"the tensor {quoted(tensor.name)} has the unknown type {tensor.type}")
    shape = _shape(tensor)
    data = buffers[tensor.buffer]
    data = data if data.size else None
    if data is not None and kind in TYPE_BITS:
        expected = -(-math.prod(shape) * TYPE_BITS[kind] // 8)
        if data.size != expected:
            raise FormatError(
                f"the constant {quoted(tensor.name)} has {data.size} bytes; {kind} {shape} needs {expected}"
            )
    scale, zero_point, axis, blockwise = _quantization(tensor, shape)
    return Tensor(
        name=tensor.name,
        shape=shape,
        type=kind,
        data=data,
        buffer=tensor.buffer,
        scale=scale,
        zero_point=zero_point,
        quantized_dimension=axis,
        blockwise=blockwise,
        open_shape=tuple(tensor.shape_signature.tolist()),
        oddity=_oddity(tensor),
    )


def _shape(tensor: SimpleNamespace) -> tuple[int, ...]:
    if tensor.shape.size > MOST_AXES or tensor.shape_signature.size not in (0, tensor.shape.size):
        found = f"{tensor.shape.size} axes, and its signature {tensor.shape_signature.size}"
        raise FormatError(f"the tensor {quoted(tensor.name)} has {found}; there can be {MOST_AXES}")
    shape = tuple(tensor.shape.tolist())
    if min(shape, default=0) < 0:
        raise FormatError(f"the tensor {quoted(tensor.name)} has the shape {shape}")
    return shape


def _quantization(
    tensor: SimpleNamespace, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, int, Blockwise | None]:
    """``(scales, zero points, axis, blockwise)``."""
    found = tensor.quantization
    if found is None:
        return np.zeros(0, "<f4"), np.zeros(0, "<i8"), 0, None
    count, axis = found.scale.size, found.quantized_dimension
    if found.zero_point.size not in (0, count):
        raise FormatError(f"{quoted(tensor.name)} has {count} scales and {found.zero_point.size} zero points")
    if count > 1:
        _check_indexes([axis], len(shape), "quantized dimension of", tensor.name)
        if shape[axis] != count:
            raise FormatError(
                f"{quoted(tensor.name)} of shape {shape} has {count} scales along axis {axis}, whose size is "
                f"{shape[axis]}"
            )
    zeros = found.zero_point if found.zero_point.size else np.zeros(count, "<i8")
    details = found.details
    blockwise = None if details is None else Blockwise(details.scales, details.zero_points, details.block_size)
    return found.scale, zeros, axis, blockwise


def _oddity(tensor: SimpleNamespace) -> str | None:
    if tensor.is_variable:
        return "is a variable"
    if tensor.sparsity is not None:
        return "is sparse"
    if tensor.external_buffer:
        return "has its bytes in another file"
    found = tensor.quantization
    if found is None or found.details is None:
        kind = 0 if found is None else found.details_type
        return f"has quantization details of the kind {kind}, which is not known here" if kind else None
    return "has blocks of two dimensions" if found.details.block_shape.size else None
