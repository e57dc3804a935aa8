"""Get the integer codes of a weight out of the tensor that holds them (``docs/format.md``, "Where the codes are")."""

import numpy as np

from tfptq.base.text import quoted
from tfptq.core.affine import weight_code_range
from tfptq.tflite.checks import tensor_at
from tfptq.tflite.metadata import FormatError, TensorBlocks
from tfptq.tflite.model_parts import Model, Tensor

#: How many times the size of the file all described weights together may have; tensors may share a buffer.
MOST_SHARING = 4


def described_tensor(blocks: TensorBlocks, model: Model) -> Tensor:
    """The tensor that a ``TensorBlocks`` describes, if it is what the description says.

    Raises:
        FormatError: there is no such tensor, or its name, type, shape or constant differ.
    """
    place, layout = f"layer {quoted(blocks.layer)}: tensor {blocks.tensor} of subgraph {blocks.subgraph}", blocks.layout
    tensor = tensor_at(model, blocks.subgraph, blocks.tensor)
    if tensor.name != blocks.tensor_name:
        raise FormatError(f"{place} has the name {quoted(tensor.name)}, the metadata says {quoted(blocks.tensor_name)}")
    if tensor.type not in layout.tensor_types:
        raise FormatError(f"{place} has the type {tensor.type}, which the layout {layout.name} does not use")
    if not layout.fits_shape(tensor.shape, blocks.shape):
        raise FormatError(f"{place} has the shape {tensor.shape}, the metadata says {blocks.shape}")
    if tensor.data is None:
        raise FormatError(f"{place} is not a constant")
    return tensor


def stored_codes(blocks: TensorBlocks, model: Model) -> np.ndarray:
    """Codes of a weight as int8 array of ``blocks.shape``, without the multipliers of the layout.

    Raises:
        FormatError: the tensor is not as described, does not divide by the multipliers, or a code leaves its range.
    """
    codes = blocks.layout.read_codes(blocks, described_tensor(blocks, model))
    low, high = weight_code_range(blocks.bits)
    if codes.min() < low or codes.max() > high:
        raise FormatError(
            f"layer {quoted(blocks.layer)}: a code of {quoted(blocks.tensor_name)} is not between {low} and {high}"
        )
    return codes
