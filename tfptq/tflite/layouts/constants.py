"""Codes as constants: int8, or two 4-bit or four 2-bit codes a byte."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import weight_code_range
from tfptq.tflite.model import TFLiteModel

#: Bits of a code -> type of the tensor, for codes that share bytes.
PACKED_TYPES = {2: schema.TensorType.INT2, 4: schema.TensorType.INT4}


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack int8 codes of 2 or 4 bits into bytes, uint8 ``[ceil(size * bits / 8)]``.

    The first of a byte lies in its lowest bits; zeros fill the last one.

    Raises:
        ValueError: a code does not fit.
    """
    low, high = weight_code_range(bits)
    if codes.size and not low <= codes.min() <= codes.max() <= high:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits, {low} to {high}")
    in_byte = 8 // bits
    flat = np.zeros(-(-codes.size // in_byte) * in_byte, np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8) & (1 << bits) - 1
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(flat.reshape(-1, in_byte) << shifts, axis=1)


def add_codes(model: TFLiteModel, name: str, codes: np.ndarray, quantization, code_bits: int) -> int:
    """Append a constant of codes in their shape, INT2, INT4 or INT8; returns its index."""
    if code_bits == 8:
        return model.add_constant(name, codes, quantization)
    index = model.add_constant(name, pack(codes, code_bits), quantization, PACKED_TYPES[code_bits])
    model.tensors[index].shape = np.asarray(codes.shape, np.int32)
    return index
