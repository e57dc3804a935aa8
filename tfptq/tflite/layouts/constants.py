"""Codes as constants: int8, or two 4-bit codes a byte."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.model import TFLiteModel

#: Smallest and largest INT4 code.
INT4_RANGE = -8, 7


def pack_int4(codes: np.ndarray) -> np.ndarray:
    """Pack int8 codes two to a byte, the first in the low half, as uint8 ``[ceil(size / 2)]``; a 0 fills the last byte.

    Raises:
        ValueError: a code is not in ``INT4_RANGE``.
    """
    low, high = INT4_RANGE
    if codes.size and not low <= codes.min() <= codes.max() <= high:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit 4 bits, {low} to {high}")
    flat = np.zeros(codes.size + codes.size % 2, np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8) & 15
    return flat[0::2] | flat[1::2] << 4


def add_codes(model: TFLiteModel, name: str, codes: np.ndarray, quantization, code_bits: int) -> int:
    """Append a constant of codes in their shape, INT4 or INT8; returns its index."""
    if code_bits == 8:
        return model.add_constant(name, codes, quantization)
    index = model.add_constant(name, pack_int4(codes), quantization, schema.TensorType.INT4)
    model.tensors[index].shape = np.asarray(codes.shape, np.int32)
    return index
