"""The inputs and outputs of a ``.tflite`` file, with what an app needs to feed codes: type, scale, zero point."""

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.model_reader import Model, Tensor
from tfptq.tflite.schema import Schema, parse_schema

#: What ``tfptq.tflite.model_reader`` does not read: signatures, and which sizes are free.
_SCHEMA_TEXT = """
file_identifier "TFL3";
root_type Model;
table Model { subgraphs:[SubGraph] (id: 2); signature_defs:[SignatureDef] (id: 7); }
table SubGraph { tensors:[Tensor]; }
table Tensor { shape_signature:[int] (id: 7); }
table SignatureDef { inputs:[TensorMap]; outputs:[TensorMap]; subgraph_index:uint (id: 4); }
table TensorMap { name:string; tensor_index:uint; }
"""


@dataclass(frozen=True)
class InterfaceRow:
    """One input or output of a file.

    Attributes:
        end: ``"input"`` or ``"output"``.
        index: its position among them, as in ``interpreter.input(index)`` of TFLite Micro.
        name: its name in the signature; that of its tensor in a file without signatures.
        shape: its shape; None for a size that may change.
        dtype: type of its elements, such as ``"int8"``.
        scale: real value of one step of a code; None where it holds real values.
        zero_point: code of the real value 0; None where it holds real values.
    """

    end: str
    index: int
    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


def read_interface(data: bytes, model: Model) -> tuple[InterfaceRow, ...]:
    """The inputs and then the outputs of a ``.tflite`` file, in its order.

    The real value of a code is ``(code - zero_point) * scale``.

    Args:
        data: the file.
        model: what ``read_model`` made of it.

    Raises:
        FormatError: the file is damaged.
    """
    graph = model.subgraphs[0]
    root = read_message(data, _schema())
    signature = next((item for item in root.signature_defs if item.subgraph_index == 0), None)
    rows = []
    for end, indexes in (("input", graph.inputs), ("output", graph.outputs)):
        names = {} if signature is None else _names(getattr(signature, f"{end}s"), len(graph.tensors))
        for position, index in enumerate(indexes):
            tensor, sizes = graph.tensors[index], root.subgraphs[0].tensors[index].shape_signature
            rows.append(_row(end, position, names.get(index, tensor.name), tensor, sizes))
    return tuple(rows)


@cache
def _schema() -> Schema:
    return parse_schema(_SCHEMA_TEXT)


def _names(entries: list[SimpleNamespace], count: int) -> dict[int, str]:
    """Tensor index -> name in the signature; the first one counts."""
    for entry in entries:
        if entry.tensor_index >= count:
            raise FormatError(f"the signature names tensor {entry.tensor_index}, which is outside of {count}")
    return {int(entry.tensor_index): entry.name for entry in reversed(entries)}


def _row(end: str, position: int, name: str, tensor: Tensor, sizes) -> InterfaceRow:
    # A file without the field has no free sizes.
    shape = tuple(None if size < 0 else int(size) for size in (sizes if len(sizes) else tensor.shape))
    scale = zero_point = None
    if tensor.scale.size == 1 and tensor.type != "FLOAT32":
        # The shortest text that is this float32, and not the digits of its float64.
        scale, zero_point = float(str(tensor.scale[0])), int(tensor.zero_point[0])
    return InterfaceRow(end, position, name, shape, tensor.type.lower(), scale, zero_point)
