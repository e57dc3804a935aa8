"""Block metadata: what an NPU needs to know about the quantized weights of a ``.tflite`` file.

``docs/format.md`` is the specification; ``blocks.fbs`` the schema. A file carries one ``BlockMetadata`` in the
buffer that ``Model.metadata`` names ``TFPTQ_BLOCKS``, with one ``TensorBlocks`` for each quantized weight tensor.
"""

import json
import os
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tfptq.core.affine import SCALE_KINDS
from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.layouts import LAYOUTS, Layout
from tfptq.tflite.model_reader import Model, read_model
from tfptq.tflite.schema import Schema, parse_schema
from tfptq.tflite.tensor_blocks import GRANULARITIES, TensorBlocks

__all__ = [
    "METADATA_KEY",
    "SCHEMA_VERSION",
    "BlockMetadata",
    "FormatError",
    "TensorBlocks",
    "attach",
    "decode",
    "encode",
    "metadata_of",
    "read",
]

METADATA_KEY = "TFPTQ_BLOCKS"
SCHEMA_VERSION = 1


@cache
def blocks_schema() -> Schema:
    """The parsed ``blocks.fbs``."""
    return parse_schema(resources.files("tfptq.tflite").joinpath("blocks.fbs").read_text(encoding="utf-8"))


@dataclass(frozen=True, eq=False)
class BlockMetadata:
    """All block metadata of a file.

    Attributes:
        config: the quantization config as JSON text (an object).
        seed: seed of all random choices, 0 to 2**64 - 1.
        versions: package -> version.
        tensors: the quantized weight tensors.
        schema_version: version of the format that the file is written in.
    """

    config: str
    seed: int
    versions: dict[str, str]
    tensors: tuple[TensorBlocks, ...]
    schema_version: int = field(default=SCHEMA_VERSION)

    def __post_init__(self):
        if not 0 <= self.seed < 2**64:
            raise FormatError(f"the seed is {self.seed}; it must be between 0 and 2**64 - 1")
        try:
            config = json.loads(self.config)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FormatError(f"the config in the block metadata is not JSON: {error}") from error
        if not isinstance(config, dict):
            raise FormatError("the config in the block metadata is not a JSON object")
        places = [(blocks.subgraph, blocks.tensor) for blocks in self.tensors]
        if len(set(places)) != len(places):
            raise FormatError("the block metadata describes one tensor twice")


def encode(metadata: BlockMetadata) -> bytes:
    """Write block metadata as a FlatBuffers message."""
    root = {
        "schema_version": metadata.schema_version,
        "config": metadata.config,
        "seed": metadata.seed,
        "versions": [{"name": name, "version": version} for name, version in sorted(metadata.versions.items())],
        "tensors": [_pack_tensor(blocks) for blocks in metadata.tensors],
    }
    return write_message(root, blocks_schema())


def decode(message: bytes) -> BlockMetadata:
    """Read and check a message that ``encode``, or a stranger, wrote.

    Raises:
        FormatError: the message is damaged, contradicts itself, or has a schema version newer than this reader.
    """
    root = read_message(message, blocks_schema())
    if root.schema_version < 1:
        raise FormatError("the block metadata states no schema version")
    if root.schema_version > SCHEMA_VERSION:
        raise FormatError(
            f"the block metadata has schema version {root.schema_version}; this tfptq reads up to {SCHEMA_VERSION}: "
            "use a newer tfptq"
        )
    versions = {entry.name: entry.version for entry in root.versions}
    tensors = tuple(_unpack_tensor(entry) for entry in root.tensors)
    return BlockMetadata(root.config, root.seed, versions, tensors, root.schema_version)


def attach(model: tflite.ModelT, metadata: BlockMetadata) -> None:
    """Put block metadata into a model of the object API, in place of what may be there already."""
    data = np.frombuffer(encode(metadata), np.uint8)
    model.metadata = [] if model.metadata is None else list(model.metadata)
    model.buffers = [] if model.buffers is None else list(model.buffers)
    for entry in model.metadata:
        if entry.name in (METADATA_KEY, METADATA_KEY.encode()):
            model.buffers[entry.buffer].data = data
            return
    model.buffers.append(tflite.BufferT(data=data))
    model.metadata.append(tflite.MetadataT(name=METADATA_KEY, buffer=len(model.buffers) - 1))


def load_bytes(file: bytes | str | os.PathLike) -> bytes:
    """The bytes of a ``.tflite`` file given as bytes or as a path."""
    return bytes(file) if isinstance(file, bytes | bytearray | memoryview) else Path(file).read_bytes()


def read(file: bytes | str | os.PathLike) -> BlockMetadata | None:
    """Block metadata of a ``.tflite`` file, given as bytes or path; None when it carries none.

    Raises:
        FormatError: the file or its metadata is damaged or too new.
        OSError: the path cannot be read.
    """
    return metadata_of(read_model(load_bytes(file)))


def metadata_of(model: Model) -> BlockMetadata | None:
    """Block metadata of a model that was read; None when it carries none. Raises like ``read``."""
    buffers = [buffer for name, buffer in model.metadata if name == METADATA_KEY]
    if len(buffers) > 1:
        raise FormatError(f"the file has {len(buffers)} metadata entries named {METADATA_KEY}; expected one")
    return decode(bytes(model.buffers[buffers[0]])) if buffers else None


def _pack_tensor(blocks: TensorBlocks) -> dict[str, Any]:
    factors = "float_factors" if blocks.scale_kind == "float" else "integer_factors"
    return {
        "subgraph": blocks.subgraph,
        "tensor": blocks.tensor,
        "tensor_name": blocks.tensor_name,
        "layer": blocks.layer,
        "bits": blocks.bits,
        "granularity": GRANULARITIES.index(blocks.granularity),
        "scale_kind": SCALE_KINDS.index(blocks.scale_kind),
        "layout": _layout_numbers()[blocks.layout.format_name],
        "shape": blocks.shape,
        "output_axis": blocks.output_axis,
        "input_axes": blocks.input_axes,
        "block_outputs": blocks.block_shape[0],
        "block_inputs": blocks.block_shape[1],
        "base": blocks.base,
        factors: blocks.factors.ravel(),
        "permutation": blocks.permutation,
    }


def _layout_numbers() -> dict[str, int]:
    return blocks_schema().enums["Layout"][1]


def _layout_of(number: int, layer: str) -> Layout:
    """The first layout that is described by a member of the enumeration."""
    for layout in LAYOUTS:
        if _layout_numbers()[layout.format_name] == number:
            return layout
    raise FormatError(f"block metadata of layer {layer!r}: unknown layout {number}")


def _unpack_tensor(entry: SimpleNamespace) -> TensorBlocks:
    def member(names: tuple[str, ...], value: int, what: str) -> str:
        if value >= len(names):
            raise FormatError(f"block metadata of layer {entry.layer!r}: unknown {what} {value}")
        return names[value]

    shape = tuple(int(size) for size in entry.shape)
    blocks = TensorBlocks(
        tensor=entry.tensor,
        tensor_name=entry.tensor_name,
        layer=entry.layer,
        bits=entry.bits,
        scale_kind=member(SCALE_KINDS, entry.scale_kind, "scale kind"),
        layout=_layout_of(entry.layout, entry.layer),
        shape=shape,
        output_axis=entry.output_axis,
        input_axes=tuple(int(axis) for axis in entry.input_axes),
        block_shape=(entry.block_outputs, entry.block_inputs),
        base=entry.base,
        factors=_unpack_factors(entry, shape),
        subgraph=entry.subgraph,
        permutation=entry.permutation.astype(np.int64) if entry.permutation.size else None,
    )
    if blocks.granularity != member(GRANULARITIES, entry.granularity, "granularity"):
        raise FormatError(f"block metadata of layer {entry.layer!r}: the granularity does not fit the blocks")
    return blocks


def _unpack_factors(entry: SimpleNamespace, shape: tuple[int, ...]) -> np.ndarray:
    """Factors as ``[V, H]``; the number of rows comes from the shape, the rest is checked by the caller."""
    is_float = entry.scale_kind == SCALE_KINDS.index("float")
    factors, other = entry.float_factors, entry.integer_factors
    if not is_float:
        factors, other = other, factors
    if other.size:
        raise FormatError(f"block metadata of layer {entry.layer!r}: factors of the wrong type are present")
    if entry.output_axis >= len(shape) or entry.block_outputs < 1:
        raise FormatError(f"block metadata of layer {entry.layer!r}: no output channels")
    rows = -(-shape[entry.output_axis] // entry.block_outputs)
    if rows < 1 or factors.size % rows:
        raise FormatError(f"block metadata of layer {entry.layer!r}: {factors.size} factors in {rows} rows")
    return factors.reshape(rows, -1)
