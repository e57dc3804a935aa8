"""Block metadata: what an NPU needs to know about the quantized weights of a ``.tflite`` file.

``docs/format.md`` is the specification; ``blocks.fbs`` the schema. A file carries one ``BlockMetadata`` in the
buffer that ``Model.metadata`` names ``TFPTQ_BLOCKS``, with one record for each quantized weight tensor, which reads as
``TensorBlocks`` together with the file.
"""

import os
from dataclasses import dataclass, field, replace

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tfptq.base.files import read_whole
from tfptq.base.json_object import read_object
from tfptq.tflite import metadata_v1
from tfptq.tflite.blocks_schema import blocks_schema
from tfptq.tflite.digest import content_digest
from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.model_parts import Model
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.serialize import pack_model
from tfptq.tflite.tensor_blocks import TensorBlocks
from tfptq.tflite.weight_records import read_records, write_records

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
SCHEMA_VERSION = 2
_DIGEST_BYTES = 32


@dataclass(frozen=True, eq=False)
class BlockMetadata:
    """All block metadata of a file.

    Attributes:
        config: the quantization config as JSON text (an object).
        seed: seed of all random choices, 0 to 2**64 - 1.
        versions: package -> version.
        tensors: the quantized weight tensors.
        schema_version: version of the format that the file is written in; new ones have the newest.
        digest: SHA-256 of what the file computes with (``content_digest``); empty in older files.
    """

    config: str
    seed: int
    versions: dict[str, str]
    tensors: tuple[TensorBlocks, ...]
    schema_version: int = field(default=SCHEMA_VERSION)
    digest: bytes = b""

    def __post_init__(self):
        if not 0 <= self.seed < 2**64:
            raise FormatError(f"the seed is {self.seed}; it must be between 0 and 2**64 - 1")
        try:
            read_object(self.config)
        except ValueError as error:
            raise FormatError(f"the config in the block metadata cannot be read: {error}") from error
        places = [(blocks.subgraph, blocks.tensor) for blocks in self.tensors]
        if len(set(places)) != len(places):
            raise FormatError("the block metadata describes one tensor twice")
        if len(self.digest) not in (0, _DIGEST_BYTES):
            raise FormatError(f"the digest in the block metadata has {len(self.digest)} bytes; SHA-256 has 32")


def encode(metadata: BlockMetadata) -> bytes:
    """Write block metadata as a FlatBuffers message of the newest version.

    Raises:
        FormatError: the scales of a weight lie in a constant, and its ``scales_tensor`` is not known.
    """
    root = {
        "schema_version": SCHEMA_VERSION,
        "config": metadata.config,
        "seed": metadata.seed,
        "packages": _packages(metadata.versions),
        "weights": np.frombuffer(write_records(metadata.tensors), np.uint8),
        "digest": np.frombuffer(metadata.digest, np.uint8) if metadata.digest else None,
    }
    return write_message(root, blocks_schema())


def decode(message: bytes, model: Model) -> BlockMetadata:
    """Read and check a message that ``encode``, or a stranger, wrote, with the scales of the model that carries it.

    Raises:
        FormatError: the message is damaged, contradicts itself, or has a schema version newer than this reader.
        VerificationError: a tensor of the model is not the one that the message was made for.
    """
    root = read_message(message, blocks_schema())
    if root.schema_version < 1:
        raise FormatError("the block metadata states no schema version")
    if root.schema_version > SCHEMA_VERSION:
        raise FormatError(
            f"the block metadata has schema version {root.schema_version}; this tfptq reads up to {SCHEMA_VERSION}: "
            "use a newer tfptq"
        )
    if root.schema_version == 1:
        versions = {entry.name: entry.version for entry in root.versions}
        return BlockMetadata(root.config, root.seed, versions, metadata_v1.read_tensors(root), 1)
    tensors = read_records(root.weights.tobytes(), model)
    return BlockMetadata(
        root.config, root.seed, _versions(root.packages), tensors, root.schema_version, root.digest.tobytes()
    )


def attach(model: tflite.ModelT, metadata: BlockMetadata) -> None:
    """Put block metadata into a finished model of the object API, in place of what may be there already.

    The digest is that of the model as it is; a tensor or operator that is changed later makes it wrong.
    """
    digest = content_digest(read_model(pack_model(model)))
    data = np.frombuffer(encode(replace(metadata, digest=digest)), np.uint8)
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
    return bytes(file) if isinstance(file, bytes | bytearray | memoryview) else read_whole(file)


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
    return decode(bytes(model.buffers[buffers[0]]), model) if buffers else None


def _packages(versions: dict[str, str]) -> str:
    """A line for each package."""
    for text in (part for pair in versions.items() for part in pair):
        if len(text.split()) != 1 or text != text.strip():
            raise FormatError(f"{text!r} is no name or version of a package")
    return "\n".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _versions(packages: str) -> dict[str, str]:
    pairs = [line.split(" ") for line in packages.split("\n")] if packages else []
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise FormatError("the packages in the block metadata are not lines of a name and a version")
    return dict(pairs)
