"""A digest of what a ``.tflite`` file computes with (``docs/format.md``, "Digest")."""

import hashlib
import struct
from collections.abc import Iterable

import numpy as np

from tfptq.tflite.model_parts import Model, Operator, Tensor
from tfptq.tflite.model_reader import TYPE_NUMBERS

#: Kind of operator -> the options that the digest covers.
_OPTIONS = {
    "CONV_2D": (
        *("padding", "stride_w", "stride_h", "fused_activation_function"),
        *("dilation_w_factor", "dilation_h_factor"),
    ),
    "DEPTHWISE_CONV_2D": (
        *("padding", "stride_w", "stride_h", "depth_multiplier", "fused_activation_function"),
        *("dilation_w_factor", "dilation_h_factor"),
    ),
    "FULLY_CONNECTED": ("fused_activation_function", "weights_format"),
    "TRANSPOSE_CONV": ("padding", "stride_w", "stride_h", "fused_activation_function"),
    "MUL": ("fused_activation_function",),
}


def content_digest(model: Model) -> bytes:
    """SHA-256 of tensors, operators and the constants that they read; not of names and other metadata.

    Each buffer is read once, however many tensors have it, and the rest as often as the reader of the file counted.
    """
    digest, buffers, names = _Digest(), dict[int, bytes](), dict[str, bytes]()
    digest.numbers("I", [len(model.subgraphs)])
    for graph in model.subgraphs:
        digest.numbers("I", [len(graph.tensors)])
        for tensor in graph.tensors:
            if tensor.data is not None and tensor.buffer not in buffers:
                buffers[tensor.buffer] = hashlib.sha256(tensor.data.tobytes()).digest()
            _add_tensor(digest, tensor, b"" if tensor.data is None else buffers[tensor.buffer])
        digest.numbers("I", [len(graph.operators)])
        for operator in graph.operators:
            if operator.custom_code and operator.custom_code not in names:
                names[operator.custom_code] = hashlib.sha256(operator.custom_code.encode()).digest()
            _add_operator(digest, operator, names.get(operator.custom_code, b""))
        digest.listed("i", graph.inputs)
        digest.listed("i", graph.outputs)
    return digest.finish()


class _Digest:
    """Collects numbers as bytes, least significant first."""

    def __init__(self):
        self._hash = hashlib.sha256()

    def numbers(self, kind: str, values: Iterable[int]) -> None:
        """Numbers in a form of ``struct``."""
        values = tuple(values)
        self._hash.update(struct.pack(f"<{len(values)}{kind}", *values))

    def listed(self, kind: str, values: Iterable[int]) -> None:
        """The same with their count before them."""
        values = tuple(values)
        self.numbers("I", [len(values)])
        self.numbers(kind, values)

    def array(self, values: np.ndarray) -> None:
        """The elements of an array with their count before them."""
        self.numbers("I", [values.size])
        self._hash.update(values.tobytes())

    def text(self, data: bytes) -> None:
        """Bytes with their count before them."""
        self.numbers("I", [len(data)])
        self._hash.update(data)

    def finish(self) -> bytes:
        return self._hash.digest()


def _add_tensor(digest: _Digest, tensor: Tensor, constant: bytes) -> None:
    digest.numbers("I", [TYPE_NUMBERS[tensor.type]])
    digest.listed("i", tensor.shape)
    digest.text(constant)
    digest.array(tensor.scale)
    digest.array(tensor.zero_point)
    digest.numbers("i", [tensor.quantized_dimension])
    found = tensor.blockwise
    digest.listed("i", () if found is None else (found.scales, found.zero_points, found.block_size))


def _add_operator(digest: _Digest, operator: Operator, custom_code: bytes) -> None:
    digest.numbers("I", [operator.code])
    digest.text(custom_code)
    digest.listed("i", operator.inputs)
    digest.listed("i", operator.outputs)
    digest.listed("i", _options(operator))


def _options(operator: Operator) -> tuple[int, ...]:
    fields = () if operator.options is None else _OPTIONS.get(operator.kind, ())
    return tuple(getattr(operator.options, field) for field in fields)
