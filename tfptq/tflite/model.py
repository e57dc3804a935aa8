"""An editable ``.tflite`` model: a few verbs over the schema's object API.

``TFLiteModel`` holds the unpacked flatbuffer (``ModelT``) and edits its main subgraph. Everything else in
``tfptq.tflite`` is written in its verbs, so that indexes, buffers, operator codes and names stay consistent in
one place.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.base.text import unique_name
from tfptq.ops.operator_spec import OperatorSpec
from tfptq.ops.table import spec_of
from tfptq.tflite.model_reader import OPERATOR_NAMES
from tfptq.tflite.references import blockwise_of, index_list, remove_unused, tensors_of
from tfptq.tflite.serialize import pack_model

#: TensorType of the schema -> numpy dtype, for the types whose buffers we read or write.
NUMPY_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
}
_TYPE_OF = {np.dtype(dtype): code for code, dtype in NUMPY_TYPES.items()}


class TFLiteModel:
    """A model whose main subgraph can be edited.

    Attributes:
        root: the ``ModelT`` of the schema.
    """

    _edited = None

    def __init__(self, data: bytes):
        self.root = schema.ModelT.InitFromPackedBuf(data, 0)
        for subgraph in self.root.subgraphs:
            for operator in subgraph.operators:
                operator.inputs = index_list(operator.inputs)
                operator.outputs = index_list(operator.outputs)
            subgraph.inputs, subgraph.outputs = index_list(subgraph.inputs), index_list(subgraph.outputs)
        self._names = {_text(tensor.name) for subgraph in self.root.subgraphs for tensor in subgraph.tensors}

    def copy(self) -> "TFLiteModel":
        """A model that can be edited without changing this one; the bytes of constants are shared."""
        twin = object.__new__(TFLiteModel)
        shared = {id(buffer.data): buffer.data for buffer in self.root.buffers}  # never edited in place
        twin.root, twin._names = copy.deepcopy(self.root, shared), set(self._names)
        return twin

    def part(self, operators: Sequence, inputs: Sequence[int], outputs: Sequence[int]) -> "TFLiteModel":
        """A model of some operators of the main subgraph that can be edited without changing this one.

        Tensors keep their indexes until ``remove_unused``. Only what is needed is copied, so that cutting a model
        into many parts costs no more than copying it once.
        """
        used = {*inputs, *outputs, *(index for operator in operators for index in tensors_of(operator))}
        used |= {blocks.scales for index in used - {-1} if (blocks := blockwise_of(self.tensors[index]))}
        empty, no_bytes = schema.TensorT(), schema.BufferT()
        root, subgraph = copy.copy(self.root), copy.copy(self.root.subgraphs[0])
        subgraph.operators, subgraph.inputs, subgraph.outputs = list(operators), list(inputs), list(outputs)
        subgraph.tensors = [tensor if at in used else empty for at, tensor in enumerate(self.tensors)]
        root.subgraphs, root.signatureDefs = [subgraph, *self.root.subgraphs[1:]], None
        filled = {tensor.buffer for each in root.subgraphs for tensor in each.tensors}
        root.buffers = [buffer if at in filled else no_bytes for at, buffer in enumerate(self.root.buffers)]
        root.metadata = root.metadataBuffer = None
        shallow = object.__new__(TFLiteModel)
        shallow.root, shallow._names = root, self._names
        return shallow.copy()

    def with_outputs(self, outputs: Sequence[int]) -> "TFLiteModel":
        """The same model with other outputs and no signature, to be run: it shares what the two have in common."""
        twin = object.__new__(TFLiteModel)
        twin.root, twin._names = copy.copy(self.root), self._names
        subgraph = copy.copy(self.root.subgraphs[0])
        subgraph.outputs, twin.root.signatureDefs = list(outputs), None
        twin.root.subgraphs = [subgraph, *self.root.subgraphs[1:]]
        return twin

    @property
    def subgraph(self):
        """The main ``SubGraphT``, or the one that ``editing`` has chosen."""
        return self.root.subgraphs[0] if self._edited is None else self._edited

    @contextlib.contextmanager
    def editing(self, subgraph):
        """Inside a ``with`` block, work on another ``SubGraphT`` than the main one."""
        self._edited = subgraph
        try:
            yield
        finally:
            self._edited = None

    @property
    def tensors(self) -> list:
        """``TensorT`` objects of the main subgraph."""
        return self.subgraph.tensors

    @property
    def operators(self) -> list:
        """``OperatorT`` objects of the main subgraph, in execution order."""
        return self.subgraph.operators

    def name(self, index: int) -> str:
        """Name of a tensor."""
        return _text(self.tensors[index].name)

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a tensor; dynamic dimensions are 1."""
        shape = self.tensors[index].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def sizes(self, index: int) -> list[int]:
        """Shape of a tensor; dynamic dimensions are -1."""
        signature = self.tensors[index].shapeSignature
        return list(self.shape(index)) if signature is None else [int(size) for size in signature]

    def operator_name(self, operator) -> str:
        """Name of an operator's kind, such as ``CONV_2D``."""
        code = self.root.operatorCodes[operator.opcodeIndex]
        return OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def spec(self, operator) -> OperatorSpec:
        """What is known of an operator's kind."""
        return spec_of(self.operator_name(operator))

    def is_constant(self, index: int) -> bool:
        """Whether a tensor's values stand in the file."""
        return index >= 0 and self.root.buffers[self.tensors[index].buffer].data is not None

    def is_state(self, index: int) -> bool:
        """Whether a tensor is one that operators change in place, and that lasts from call to call."""
        return index >= 0 and bool(self.tensors[index].isVariable)

    def is_float(self, index: int) -> bool:
        """Whether a tensor is float32."""
        return index >= 0 and self.tensors[index].type == schema.TensorType.FLOAT32

    def constant(self, index: int) -> np.ndarray:
        """Values of a constant tensor, in its shape."""
        tensor = self.tensors[index]
        data = np.asarray(self.root.buffers[tensor.buffer].data, np.uint8)
        return data.view(NUMPY_TYPES[tensor.type]).reshape(self.shape(index))

    def producers(self) -> dict[int, int]:
        """Tensor index -> position of the operator that writes it."""
        return {out: at for at, operator in enumerate(self.operators) for out in operator.outputs}

    def consumers(self) -> dict[int, list[int]]:
        """Tensor index -> positions of the operators that read it."""
        readers: dict[int, list[int]] = {}
        for at, operator in enumerate(self.operators):
            for index in dict.fromkeys(operator.inputs):
                readers.setdefault(index, []).append(at)
        return readers

    def activations(self) -> Iterator[int]:
        """Indexes of the float32 tensors that hold activations: inputs and results of operators, without states."""
        seen = dict.fromkeys(self.subgraph.inputs)
        for operator in self.operators:
            seen.update(dict.fromkeys(operator.outputs))
        return (
            index for index in seen if self.is_float(index) and not (self.is_constant(index) or self.is_state(index))
        )

    def unique_name(self, wanted: str) -> str:
        """A tensor name that no tensor of any subgraph has yet; it is taken from now on."""
        name = unique_name(wanted, self._names)
        self._names.add(name)
        return name

    def places(self) -> dict[str, tuple[int, int]]:
        """Name of each tensor -> (subgraph, index in it)."""
        return {
            _text(tensor.name): (number, index)
            for number, subgraph in enumerate(self.root.subgraphs)
            for index, tensor in enumerate(subgraph.tensors)
        }

    def short_names(self) -> dict[str, str]:
        """Name of a tensor -> a name after one of the operators that the converter fused into it ("a;b;c").

        That is the first one, which made the result. A bias is named after its layer.
        """
        found: dict[str, str] = {}
        taken = {"", *self._names}
        for tensor in (tensor for subgraph in self.root.subgraphs for tensor in subgraph.tensors):
            name = _text(tensor.name)
            parts = name.split(";")
            is_constant = self.root.buffers[tensor.buffer].data is not None
            biases = [part.removesuffix("BiasAdd") + "bias" for part in parts if part.endswith("/BiasAdd")]
            short = biases[0] if is_constant and biases else parts[0]
            found[name] = name if short in taken else short
            taken.add(short)
        return found

    def shorten_names(self) -> None:
        """Give all tensors their short names."""
        short = self.short_names()
        for tensor in (tensor for subgraph in self.root.subgraphs for tensor in subgraph.tensors):
            tensor.name = short[_text(tensor.name)]
        self._names = set(short.values())

    def release_name(self, index: int) -> str:
        """Take the name away from a tensor that is about to be replaced; returns the name, which is free now."""
        name = self.name(index)
        self.tensors[index].name = self.unique_name(f"{name}_replaced")
        self._names.discard(name)
        return name

    def add_buffer(self, data: np.ndarray) -> int:
        """Append a buffer with the bytes of an array."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.root.buffers.append(buffer)
        return len(self.root.buffers) - 1

    def add_constant(self, name: str, values: np.ndarray, quantization=None, tensor_type: int | None = None) -> int:
        """Append a constant tensor.

        Args:
            name: wanted name; made unique.
            values: in the shape of the tensor.
            quantization: ``QuantizationParametersT`` or None.
            tensor_type: type code when ``values`` is packed (INT4, INT2); then ``values`` are the packed bytes and the
                caller sets the shape.
        """
        values = np.asarray(values)
        tensor = schema.TensorT()
        tensor.name = self.unique_name(name)
        tensor.shape = np.asarray(values.shape, np.int32)
        tensor.type = _TYPE_OF[values.dtype] if tensor_type is None else tensor_type
        tensor.buffer = self.add_buffer(values)
        tensor.quantization = quantization
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def shared_constant(self, name: str, values: np.ndarray) -> int:
        """A constant tensor without quantization, new if there is no equal one."""
        wanted = _TYPE_OF[values.dtype]
        for index, tensor in enumerate(self.tensors):
            plain = tensor.type == wanted and tensor.quantization is None and self.is_constant(index)
            if plain and np.array_equal(self.constant(index), values):
                return index
        return self.add_constant(name, values)

    def add_activation_like(self, index: int, name: str, tensor_type: int, quantization=None) -> int:
        """Append an activation tensor with the shape of another."""
        model = self.tensors[index]
        tensor = schema.TensorT()
        tensor.name = self.unique_name(name)
        tensor.shape, tensor.shapeSignature, tensor.hasRank = model.shape, model.shapeSignature, model.hasRank
        tensor.type, tensor.buffer, tensor.quantization = tensor_type, 0, quantization
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def new_operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, options=None):
        """Make an operator of a kind such as ``QUANTIZE``; the caller puts it into ``operators``."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.operator_code(name, version)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        return operator

    def operator_code(self, name: str, version: int) -> int:
        """Index of an operator code, appended when it is new."""
        wanted = getattr(schema.BuiltinOperator, name)
        for at, code in enumerate(self.root.operatorCodes):
            if (max(code.builtinCode, code.deprecatedBuiltinCode), code.version) == (wanted, version):
                return at
        code = schema.OperatorCodeT()
        # Old readers know only the deprecated field, which holds codes up to 127.
        code.deprecatedBuiltinCode, code.builtinCode, code.version = min(wanted, 127), wanted, version
        self.root.operatorCodes.append(code)
        return len(self.root.operatorCodes) - 1

    def raise_version(self, operator, least: int) -> None:
        """Make sure that an operator has at least a version."""
        code = self.root.operatorCodes[operator.opcodeIndex]
        if code.version < least:
            operator.opcodeIndex = self.operator_code(self.operator_name(operator), least)

    def remove_unused(self) -> None:
        """Drop the buffers, tensors and operator codes that nothing refers to any more."""
        remove_unused(self.root)

    def remove_metadata(self, names: Iterable[str]) -> None:
        """Drop the entries of the metadata that have one of some names; their buffers stay until ``remove_unused``."""
        self.root.metadata = [entry for entry in self.root.metadata or [] if _text(entry.name) not in names]

    def to_bytes(self) -> bytes:
        """Serialize."""
        return pack_model(self.root)


def quantization_parameters(scales, zero_points, axis: int = 0):
    """``QuantizationParametersT`` from scales and zero points."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.asarray(scales, np.float32)
    parameters.zeroPoint = np.asarray(zero_points, np.int64)
    parameters.quantizedDimension = axis
    return parameters


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else (name or "")
