"""The inputs and outputs of a ``.tflite`` file, with what an app needs to feed codes: type, scale, zero point."""

import math
from dataclasses import dataclass

from tfptq.tflite.flatbuffer import LEAST_WORK, WORK_FACTOR, FormatError
from tfptq.tflite.model_parts import Model, Tensor


@dataclass(frozen=True)
class InterfaceRow:
    """One input or output of a file.

    Attributes:
        end: ``"input"`` or ``"output"``.
        index: its position among them, as in ``interpreter.input(index)`` of TFLite Micro.
        name: its name in the signature; that of its tensor in a file without signatures.
        shape: its shape; None for a size that may change.
        dtype: type of its elements, such as ``"int8"``.
        scale: real value of one step of a code; None where it holds real values, or the file has no finite number.
        zero_point: code of the real value 0; None where there is no scale.
    """

    end: str
    index: int
    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


def read_interface(model: Model) -> tuple[InterfaceRow, ...]:
    """The inputs and then the outputs of a ``.tflite`` file, in its order.

    The real value of a code is ``(code - zero_point) * scale``.

    Raises:
        FormatError: it lists one name so often that the rows would be much larger than the file.
    """
    graph = model.subgraphs[0]
    signature = next((item for item in model.signatures if item.subgraph == 0), None)
    rows, letters_left = [], WORK_FACTOR * model.size + LEAST_WORK
    for end, indexes in (("input", graph.inputs), ("output", graph.outputs)):
        pairs = () if signature is None else signature.inputs if end == "input" else signature.outputs
        names = dict(reversed(pairs))  # the first name of a tensor counts
        for position, index in enumerate(indexes):
            tensor = graph.tensors[index]
            rows.append(_row(end, position, names.get(index, tensor.name), tensor))
            letters_left -= len(rows[-1].name)
            if letters_left < 0:
                raise FormatError(f"the {end}s of the file repeat long names too often")
    return tuple(rows)


def _row(end: str, position: int, name: str, tensor: Tensor) -> InterfaceRow:
    # A file without an open shape has no free sizes.
    shape = tuple(None if size < 0 else size for size in tensor.open_shape or tensor.shape)
    scale = zero_point = None
    if tensor.scale.size == 1 and tensor.type != "FLOAT32" and math.isfinite(tensor.scale[0]):
        # The shortest text that is this float32, and not the digits of its float64.
        scale, zero_point = float(str(tensor.scale[0])), int(tensor.zero_point[0])
    return InterfaceRow(end, position, name, shape, tensor.type.lower(), scale, zero_point)
