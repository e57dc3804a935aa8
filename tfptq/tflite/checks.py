"""Checks of a file against its metadata: the error and the words of both outcomes."""

import numpy as np

from tfptq.base.text import counted
from tfptq.tflite.model_reader import Tensor


class VerificationError(ValueError):
    """A file does not agree with its block metadata. The message names the tensor."""


def require(holds: bool, tensor: Tensor, problem: str) -> None:
    """Raise ``VerificationError`` about a tensor unless something holds."""
    if not holds:
        raise VerificationError(f"tensor {tensor.name!r}: {problem}")


def equal_to_metadata(count: int, noun: str) -> str:
    """``3 scales equal the metadata``."""
    return f"{counted(count, noun)} {'equals' if count == 1 else 'equal'} the metadata"


def float_bits(values: np.ndarray) -> np.ndarray:
    """Bit patterns of float32 values, which unlike the values can be compared whatever they are."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32)
