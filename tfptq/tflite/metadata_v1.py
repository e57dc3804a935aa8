"""Read the weights of block metadata of version 1, which held everything in a table for each weight."""

from types import SimpleNamespace

import numpy as np

from tfptq.base.text import quoted
from tfptq.core.affine import SCALE_KINDS
from tfptq.tflite.blocks_schema import layout_of, member_of
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.tensor_blocks import GRANULARITIES, TensorBlocks


def read_tensors(root: SimpleNamespace) -> tuple[TensorBlocks, ...]:
    """The weights of a message; raises FormatError where an entry contradicts itself."""
    return tuple(_tensor(entry) for entry in root.tensors)


def _tensor(entry: SimpleNamespace) -> TensorBlocks:
    what, shape = f"layer {quoted(entry.layer)}", tuple(int(size) for size in entry.shape)
    blocks = TensorBlocks(
        tensor=entry.tensor,
        tensor_name=entry.tensor_name,
        layer=entry.layer,
        bits=entry.bits,
        scale_kind=member_of(SCALE_KINDS, entry.scale_kind, "scale kind", what),
        layout=layout_of(entry.layout, what),
        shape=shape,
        output_axis=entry.output_axis,
        input_axes=tuple(int(axis) for axis in entry.input_axes),
        block_shape=(entry.block_outputs, entry.block_inputs),
        base=entry.base,
        factors=_factors(entry, shape),
        subgraph=entry.subgraph,
    )
    if blocks.granularity != member_of(GRANULARITIES, entry.granularity, "granularity", what):
        raise FormatError(f"block metadata of layer {quoted(entry.layer)}: the granularity does not fit the blocks")
    return blocks


def _factors(entry: SimpleNamespace, shape: tuple[int, ...]) -> np.ndarray:
    """Factors as ``[V, H]``; the number of rows comes from the shape, the rest is checked by the caller."""
    is_float = entry.scale_kind == SCALE_KINDS.index("float")
    factors, other = entry.float_factors, entry.integer_factors
    if not is_float:
        factors, other = other, factors
    if other.size:
        raise FormatError(f"block metadata of layer {quoted(entry.layer)}: factors of the wrong type are present")
    if entry.output_axis >= len(shape) or entry.block_outputs < 1:
        raise FormatError(f"block metadata of layer {quoted(entry.layer)}: no output channels")
    rows = -(-shape[entry.output_axis] // entry.block_outputs)
    if rows < 1 or factors.size % rows:
        raise FormatError(f"block metadata of layer {quoted(entry.layer)}: {factors.size} factors in {rows} rows")
    return factors.reshape(rows, -1)
