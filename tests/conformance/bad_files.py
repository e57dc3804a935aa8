"""Files that a reader has to refuse, and files that only a verifier has to refuse; name -> (reason, how it is made)."""

import struct
from collections.abc import Callable

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from hand_made import VIEWS, random_weight
from hostile_files import conv, dense, describe, operator, second_mul, tensor, with_message

from tfptq.tflite.layouts import COMPOSITE, INLINE, INT4
from tfptq.tflite.model import pack_model

BadFiles = dict[str, tuple[str, Callable[[], bytes]]]


def _changed(change: Callable, make: Callable = dense) -> Callable[[], bytes]:
    """A model that is changed after its metadata were made."""

    def made() -> bytes:
        builder = make()
        builder.finish()
        change(builder)
        return pack_model(builder.model)

    return made


def _signed(change: Callable, make: Callable = dense) -> Callable[[], bytes]:
    """A model that is changed before its metadata are made."""

    def made() -> bytes:
        builder = make()
        change(builder)
        return builder.finish()

    return made


def _message(make: Callable = dense, **changes) -> Callable[[], bytes]:
    return lambda: with_message(make(), **changes)


def _tensor(of: str, **fields) -> Callable:
    return lambda builder: [setattr(tensor(builder, of), field, value) for field, value in fields.items()]


def _operator(of: str, **fields) -> Callable:
    return lambda builder: [setattr(operator(builder, of), field, value) for field, value in fields.items()]


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    return lambda: change(dense().finish())


def _record(position: int, value: int) -> Callable[[bytes], bytes]:
    return lambda record: record[:position] + bytes([value]) + record[position + 1 :]


def _index(number: bytes) -> Callable[[bytes], bytes]:
    """Other bytes for the index of the tensor."""
    return lambda record: record[:3] + number + record[4:]


def _nan_scale(builder) -> None:
    tensor(builder, "layer_0/kernel").quantization.scale[2] = np.nan


def _unread() -> bytes:
    builder, view = dense(), VIEWS["FULLY_CONNECTED"]((4, 4))
    builder.weight(random_weight(np.random.default_rng(0), view), view, tensor_name="spare")
    return builder.finish()


def _buffer_outside() -> bytes:
    builder, packer = dense(), flatbuffers.Builder(1024)
    builder.finish()
    builder.model.buffers.append(schema.BufferT(offset=2**20, size=2**60))
    packer.Finish(builder.model.Pack(packer), b"TFL3")
    return bytes(packer.Output())


def _flip(name: str) -> Callable:
    """Turn one bit of a constant."""

    def change(builder) -> None:
        buffer = builder.model.buffers[tensor(builder, name).buffer]
        buffer.data = np.concatenate([buffer.data[:1] ^ 1, buffer.data[1:]])

    return change


def _named(layer: bytes) -> Callable[[], bytes]:
    """A record with a text for its layer."""

    def weights(record: bytes) -> bytes:
        return record[:2] + bytes([record[2] | 2]) + record[3:4] + bytes([len(layer)]) + layer + record[4:]

    return _message(weights=weights)


REFUSED: BadFiles = {
    "empty": ("no bytes", lambda: b""),
    "short": ("fewer bytes than a root offset and an identifier", lambda: b"\x08\0\0\0TFL"),
    "identifier": ("the identifier of another format", _bytes(lambda file: file[:4] + b"TPQB" + file[8:])),
    "cut": ("half of a file", _bytes(lambda file: file[: len(file) // 2])),
    "root": ("the root table lies outside", _bytes(lambda file: struct.pack("<I", 2**31) + file[4:])),
    "schema_version_0": ("no schema version", _message(schema_version=0)),
    "schema_version_3": ("a newer schema version", _message(schema_version=3)),
    "config_no_json": ("the config is no JSON", _message(config="{")),
    "config_no_object": ("the config is no object", _message(config="[1]")),
    "config_deep": ("33 brackets are open", _message(config='{"a":' + "[" * 32 + "]" * 32 + "}")),
    "config_number": ("a number of 41 letters", _message(config='{"a":' + "1" * 41 + "}")),
    "config_exponent": ("an exponent of three digits", _message(config='{"a":1e100}')),
    "config_not_a_number": ("NaN is no JSON", _message(config='{"a":NaN}')),
    "config_surrogate": ("half of a surrogate pair", _message(config='{"a":"\\ud800"}')),
    "packages": ("a line of three words", _message(packages="tfptq 1.0 beta")),
    "packages_end": ("the last line is empty", _message(packages="tfptq 1.0\n")),
    "digest": ("a digest of 16 bytes", _message(digest=np.zeros(16, np.uint8))),
    "bits": ("7 bits", _message(weights=_record(0, 7))),
    "scale_kind": ("an unknown scale kind", _message(weights=_record(0, 0x34))),
    "layout_5": ("the reserved layout", _message(weights=_record(1, 5))),
    "layout_10": ("an unknown layout", _message(weights=_record(1, 10))),
    "flags_float_base": ("a base of float scales", _message(weights=_record(2, 64))),
    "flags_axes": ("two ways to tell the axes", _message(weights=_record(2, 24))),
    "flags_scales": ("block scales where the layout has none", _message(weights=_record(2, 32))),
    "tensor_absent": ("a tensor that does not exist", _message(weights=_record(3, 100))),
    "tensor_no_constant": ("a tensor that is no constant", _message(weights=_record(3, 0))),
    "number_long": (
        "a number of six bytes",
        _message(weights=_index(b"\x81\x80\x80\x80\x80\x00")),
    ),
    "number_large": ("a number above 2^32", _message(weights=_index(b"\xff\xff\xff\xff\x1f"))),
    "record_cut": ("the last record is cut", _message(weights=lambda it: it[:-1])),
    "record_more": ("bytes behind the last record", _message(weights=lambda it: it + b"\0")),
    "record_twice": ("one tensor is described twice", _message(weights=lambda it: it + it)),
    "checksum": ("another checksum", _message(weights=lambda it: it[:-4] + bytes([it[-4] ^ 1]) + it[-3:])),
    "layer_utf8": ("a text that is no UTF-8", _named(b"\xff")),
    "renamed": ("the tensor has another name", _changed(_tensor("layer_0/kernel", name="other"))),
    "kernel_bytes": ("a constant shorter than its shape", _changed(_tensor("layer_0/kernel", shape=[4, 5]))),
    "axes_33": ("a tensor of 33 axes", _changed(_tensor("layer_0/output", shape=[1] * 33))),
    "negative_size": ("a tensor of negative size", _changed(_tensor("layer_0/output", shape=[-1]))),
    "type": ("an unknown type of tensor", _changed(_tensor("layer_0/output", type=99))),
    "buffer": ("a buffer that does not exist", _changed(_tensor("layer_0/output", buffer=999))),
    "operator_input": (
        "an input that does not exist",
        _changed(_operator("FULLY_CONNECTED", inputs=[0, 1, 77])),
    ),
    "operator_code": ("a code that does not exist", _changed(_operator("FULLY_CONNECTED", opcodeIndex=9))),
    "scale_nan": ("a scale that is no number", _changed(_nan_scale)),
    "buffer_outside": ("a buffer behind the end of the file", _buffer_outside),
    "two_entries": (
        "two entries of metadata",
        _changed(lambda builder: builder.model.metadata.append(builder.model.metadata[0])),
    ),
}


UNVERIFIED: BadFiles = {
    "code": ("the digest differs: a code was changed", _changed(_flip("layer_0/kernel"), lambda: dense(bits=8))),
    "bias": ("the digest differs: a bias was changed", _changed(_flip("layer_0/bias"))),
    "stride": (
        "the digest differs: a stride was changed",
        _changed(lambda it: setattr(operator(it, "CONV_2D").builtinOptions, "strideW", 2), conv),
    ),
    "no_weights": ("the metadata describes nothing", _message(weights=lambda it: b"")),
    "transposed": (
        "the axes of the transposed kernel",
        _signed(lambda it: describe(it, output_axis=1, input_axes=(0,)), lambda: dense(block=(4, 4))),
    ),
    "no_input_axes": (
        "a convolution without input axes",
        _signed(
            lambda it: describe(it, input_axes=(), block_shape=(4, 1)),
            lambda: conv((4, 3, 3, 2), kind="float", block=(4, 2)),
        ),
    ),
    "bits_of_int4": ("codes of 8 bits in INT4", _signed(lambda it: describe(it, bits=8), lambda: dense(INT4))),
    "second_product": ("another MUL behind the first", _signed(second_mul, lambda: dense(INLINE))),
    "composite_name": (
        "a composite with another name",
        _signed(
            lambda it: setattr(operator(it, "STABLEHLO_COMPOSITE").builtinOptions2, "name", "other"),
            lambda: dense(COMPOSITE),
        ),
    ),
    "unread": ("a kernel that no operator reads", _unread),
    "dilation": (
        "a dilation of 2^20",
        _signed(lambda it: setattr(operator(it, "CONV_2D").builtinOptions, "dilationHFactor", 2**20), conv),
    ),
}
