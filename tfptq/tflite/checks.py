"""Checks of a file against its metadata: the error and the words of both outcomes."""

import numpy as np

from tfptq.base.text import counted, quoted
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.model_parts import Model, Tensor


class VerificationError(FormatError):
    """A file does not agree with its block metadata. The message names the tensor."""


def require(holds: bool, tensor: Tensor, problem: str) -> None:
    """Raise ``VerificationError`` about a tensor unless something holds."""
    if not holds:
        raise VerificationError(f"tensor {quoted(tensor.name)}: {problem}")


def tensor_at(model: Model, subgraph: int, index: int) -> Tensor:
    """The tensor that the metadata points to; ``VerificationError`` where there is none."""
    if subgraph >= len(model.subgraphs) or index >= len(model.subgraphs[subgraph].tensors):
        raise VerificationError(f"tensor {index} of subgraph {subgraph}, which the metadata describes, does not exist")
    return model.subgraphs[subgraph].tensors[index]


def equal_to_metadata(count: int, noun: str) -> str:
    """``3 scales equal the metadata``."""
    return f"{counted(count, noun)} {'equals' if count == 1 else 'equal'} the metadata"


def float_bits(values: np.ndarray) -> np.ndarray:
    """Bit patterns of float32 values, which unlike the values can be compared whatever they are."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32)
