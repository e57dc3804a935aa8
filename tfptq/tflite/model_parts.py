"""What is in a ``.tflite`` file, checked by ``model_reader``."""

import math
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import numpy as np

from tfptq.base.text import quoted
from tfptq.tflite.flatbuffer import FormatError

#: Most axes of a tensor: as many as every version of numpy knows.
MOST_AXES = 32
#: Bits of one element, for the types whose constants we check. INT4 and INT2 codes share bytes, low bits first.
TYPE_BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "INT32": 32, "UINT8": 8, "INT64": 64, "BOOL": 8, "INT16": 16, "INT8": 8,
    "FLOAT64": 64, "UINT64": 64, "UINT32": 32, "UINT16": 16, "INT4": 4, "INT2": 2, "UINT4": 4, "BFLOAT16": 16,
}  # fmt: skip
_NUMPY = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "INT64": "<i8", "INT16": "<i2", "INT8": "i1"}


@dataclass(frozen=True)
class Blockwise:
    """``BlockwiseQuantization``: indexes of the tensors of scales and zero points (-1: none), inputs of a block."""

    scales: int
    zero_points: int
    block_size: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: its name.
        shape: its shape; () for a scalar.
        type: ``"INT8"``, ``"FLOAT32"``, ...
        data: the bytes of a constant; None for a tensor computed at run time.
        buffer: index of their buffer.
        scale: float32 scales of its quantization parameters; empty when not quantized.
        zero_point: int64 zero points, as many as scales.
        quantized_dimension: axis of the scales.
        blockwise: where its scales are another tensor, or None.
        open_shape: the shape with -1 for sizes that may change; () in files that do not say.
        oddity: why its bytes may not be what they seem to be, or None.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    data: np.ndarray | None
    buffer: int
    scale: np.ndarray
    zero_point: np.ndarray
    quantized_dimension: int
    blockwise: Blockwise | None
    open_shape: tuple[int, ...]
    oddity: str | None

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
            raise FormatError(f"the tensor {quoted(self.name)} is not a constant")
        if self.type in ("INT4", "INT2"):
            return unpack(self.data, TYPE_BITS[self.type], math.prod(self.shape)).reshape(self.shape)
        if self.type not in _NUMPY:
            raise FormatError(f"the constant {quoted(self.name)} has the type {self.type}, which is not read here")
        return self.data.view(_NUMPY[self.type]).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator.

    Attributes:
        kind: ``"CONV_2D"``, ``"CUSTOM name"``, ...
        code: its number in LiteRT's schema.
        custom_code: the name of a custom operator; else empty.
        inputs: indexes of tensors; -1 for one that is left out.
        outputs: the same.
        options: the table of options of the kinds in ``model.fbs``; else None.
    """

    kind: str
    code: int
    custom_code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: SimpleNamespace | None

    def input(self, place: int) -> int:
        """Index of the tensor at a place among the inputs; -1 where there is none."""
        return self.inputs[place] if place < len(self.inputs) else -1


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A subgraph: tensors, operators in order of execution, and the indexes of its inputs and outputs."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def writers(self) -> dict[int, list[int]]:
        """Tensor index -> positions of the operators that write it; more than one only in odd files."""
        found: dict[int, list[int]] = {}
        for position, operator in enumerate(self.operators):
            for index in dict.fromkeys(operator.outputs):
                found.setdefault(index, []).append(position)
        return found

    def producer(self, index: int) -> Operator | None:
        """The operator that writes a tensor; None where none does, or several do."""
        positions = self.writers.get(index, [])
        return self.operators[positions[0]] if len(positions) == 1 else None

    @cached_property
    def _entries(self) -> frozenset[int]:
        return frozenset(self.inputs)

    def is_fixed(self, index: int) -> bool:
        """Whether a tensor is a constant that nothing overwrites, neither an operator nor who runs the subgraph."""
        tensor = self.tensors[index]
        unwritten = index not in self.writers and index not in self._entries
        return tensor.data is not None and tensor.oddity is None and unwritten

    @cached_property
    def quantized(self) -> dict[int, int]:
        """Tensor index -> what the first QUANTIZE that reads it makes of it."""
        found: dict[int, int] = {}
        for operator in self.operators:
            if operator.kind == "QUANTIZE" and operator.inputs and operator.outputs:
                found.setdefault(operator.inputs[0], operator.outputs[0])
        return found


#: Kind of operator -> fields of its options that name a subgraph, which it runs.
_RUNS = {
    "CALL": ("subgraph",),
    "CALL_ONCE": ("init_subgraph_index",),
    "IF": ("then_subgraph_index", "else_subgraph_index"),
    "STABLEHLO_COMPOSITE": ("decomposition_subgraph_index",),
    "WHILE": ("cond_subgraph_index", "body_subgraph_index"),
}


@dataclass(frozen=True)
class Signature:
    """Names of the inputs and outputs of a subgraph: pairs (tensor index, name)."""

    subgraph: int
    inputs: tuple[tuple[int, str], ...]
    outputs: tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class Model:
    """A checked ``.tflite`` file.

    Attributes:
        subgraphs: the first is the main one.
        buffers: uint8 bytes of each buffer.
        metadata: pairs (key, buffer index).
        signatures: names of the ends of subgraphs.
        size: bytes of the file.
    """

    subgraphs: tuple[Subgraph, ...]
    buffers: tuple[np.ndarray, ...]
    metadata: tuple[tuple[str, int], ...]
    signatures: tuple[Signature, ...]
    size: int

    @cached_property
    def callers(self) -> dict[int, list[Operator]]:
        """Subgraph -> operators that run it, for those that the main one or a signature leads to."""
        found: dict[int, list[Operator]] = {0: [], **{signature.subgraph: [] for signature in self.signatures}}
        waiting = list(found)
        while waiting:
            for operator in self.subgraphs[waiting.pop()].operators:
                for called in _called(operator):
                    if called not in found and 0 <= called < len(self.subgraphs):
                        waiting.append(called)
                    found.setdefault(called, []).append(operator)
        return found


def _called(operator: Operator) -> list[int]:
    return [getattr(operator.options, field) for field in _RUNS.get(operator.kind, ()) if operator.options is not None]


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Sign-extend packed codes of 2 or 4 bits to int8 ``[count]``; the first of a byte lies in its lowest bits."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)  # to the top of a byte, whose sign fills the way back
    return ((packed[:, None] << shifts).view(np.int8) >> (8 - bits)).reshape(-1)[:count]
