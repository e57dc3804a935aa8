"""Serialize a ``ModelT`` of the object API: aligned buffers, and equal vectors and grids once."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FILE_IDENTIFIER = b"TFL3"
#: Constants are aligned as the schema demands (``force_align: 16``), which microcontrollers rely on.
BUFFER_ALIGNMENT = 16


def pack_model(root: schema.ModelT) -> bytes:
    """Serialize a ``ModelT``, with the alignment that the schema demands, and equal vectors and grids once."""
    builder = _SharingBuilder(1 << 20)
    buffers = root.buffers
    grids = [(tensor, tensor.quantization) for graph in root.subgraphs for tensor in graph.tensors]
    try:
        root.buffers = [_AlignedBuffer(buffer) for buffer in buffers]
        for tensor, quantization in grids:
            tensor.quantization = None if quantization is None else _SharedGrid(quantization)
        builder.Finish(root.Pack(builder), FILE_IDENTIFIER)
    finally:
        root.buffers = buffers
        for tensor, quantization in grids:
            tensor.quantization = quantization
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors once: a kernel per channel and its bias have 8 bytes of zero point for each channel."""

    def __init__(self, size: int):
        super().__init__(size)
        self.written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x):  # noqa: N802 (name of the library)
        key = x.dtype.str, x.tobytes()
        if key not in self.written:
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]


class _SharedGrid:
    """Packs a ``QuantizationParametersT`` once for all tensors that have the same: most copies of an activation."""

    def __init__(self, quantization):
        self._quantization = quantization

    def Pack(self, builder):  # noqa: N802 (name of the object API)
        plain = vars(self._quantization)
        if plain["details"] is not None:
            return self._quantization.Pack(builder)
        key = "", repr({name: np.asarray(value).tolist() for name, value in plain.items()}).encode()
        if key not in builder.written:
            builder.written[key] = self._quantization.Pack(builder)
        return builder.written[key]


class _AlignedBuffer:
    """Packs a ``BufferT`` with the alignment of the schema, which the generated code does not keep."""

    def __init__(self, buffer):
        self._data = buffer.data

    def Pack(self, builder):  # noqa: N802 (name of the object API)
        vector = None
        if self._data is not None and len(self._data):
            data = np.asarray(self._data, np.uint8).tobytes()
            builder.StartVector(1, len(data), BUFFER_ALIGNMENT)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)
