"""Get the integer codes of a weight out of the tensor that holds them (``docs/format.md``, "Where the codes are")."""

import math

import numpy as np

from tfptq.core.affine import weight_code_range
from tfptq.tflite.metadata import FormatError, TensorBlocks
from tfptq.tflite.model_reader import Model, Tensor

#: Types that the tensor of a layout may have.
LAYOUT_TYPES = {
    "int8": ("INT8",),
    "int4": ("INT4",),
    "native": ("INT4",),
    "inline": ("INT4", "INT8"),
    "composite": ("INT4", "INT8"),
    "float32": ("FLOAT32",),
}


def described_tensor(blocks: TensorBlocks, model: Model) -> Tensor:
    """The tensor that a ``TensorBlocks`` describes, if it is what the description says.

    Raises:
        FormatError: there is no such tensor, or its name, type, shape or constant differ.
    """
    place = f"layer {blocks.layer!r}: tensor {blocks.tensor} of subgraph {blocks.subgraph}"
    if blocks.subgraph >= len(model.subgraphs) or blocks.tensor >= len(model.subgraphs[blocks.subgraph].tensors):
        raise FormatError(f"{place} does not exist")
    tensor = model.subgraphs[blocks.subgraph].tensors[blocks.tensor]
    if tensor.name != blocks.tensor_name:
        raise FormatError(f"{place} has the name {tensor.name!r}, the metadata says {blocks.tensor_name!r}")
    if tensor.type not in LAYOUT_TYPES[blocks.layout]:
        raise FormatError(f"{place} has the type {tensor.type}, which the layout {blocks.layout} does not use")
    unpacked = blocks.layout in ("inline", "composite")
    same = math.prod(tensor.shape) == math.prod(blocks.shape) if unpacked else tensor.shape == blocks.shape
    if not same:
        raise FormatError(f"{place} has the shape {tensor.shape}, the metadata says {blocks.shape}")
    if tensor.data is None:
        raise FormatError(f"{place} is not a constant")
    return tensor


def stored_codes(blocks: TensorBlocks, model: Model) -> np.ndarray:
    """Codes of a weight as int8 array of ``blocks.shape``, without the multipliers of the layout.

    Raises:
        FormatError: the tensor is not as described, does not divide by the multipliers, or a code leaves its range.
    """
    tensor = described_tensor(blocks, model)
    codes = blocks.codes
    if codes is None:
        codes = tensor.values().reshape(blocks.shape)
        if blocks.layout in ("int8", "int4") and blocks.factors.shape[1] > 1:
            codes = _divided(blocks, codes)
    low, high = weight_code_range(blocks.bits)
    if codes.min() < low or codes.max() > high:
        raise FormatError(f"layer {blocks.layer!r}: a code of {blocks.tensor_name!r} is not between {low} and {high}")
    return codes


def _divided(blocks: TensorBlocks, stored: np.ndarray) -> np.ndarray:
    """``q = stored / r``, which must be exact."""
    multipliers = blocks.scales().expand(blocks.outputs, blocks.inputs, blocks.multipliers())  # [O, I, 1]
    codes, rest = np.divmod(blocks.view.to_view(stored).astype(np.int32), multipliers)
    if rest.any():
        raise FormatError(f"layer {blocks.layer!r}: {blocks.tensor_name!r} is not a multiple of its block multipliers")
    return blocks.view.from_view(codes.astype(np.int8))
