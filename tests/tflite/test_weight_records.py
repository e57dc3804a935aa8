"""The records themselves; ``test_metadata.py`` has round trips of every kind and damaged messages."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hand_made import VIEWS, FileBuilder, network, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.blocks import BlockScales
from tfptq.tflite.checks import VerificationError
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.layouts import INLINE, INT8
from tfptq.tflite.metadata import metadata_of
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.packing import PackedWriter
from tfptq.tflite.weight_records import layer_of, read_records, write_records

SMALL = VIEWS["FULLY_CONNECTED"]((6, 4))


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("model/conv2d_1_2/convolution", "conv2d_1"),
        ("model/conv2d_1/convolution", "conv2d"),
        ("dense_7/MatMul", "dense"),
        ("a/b/stem/kernel", "stem"),
        ("kernel", "kernel"),
        ("kernel_12", "kernel"),
        ("model/_3/kernel", "_3"),
        ("model/x_/kernel", "x_"),
        ("model/x_1a/kernel", "x_1a"),
        ("model/x_\u0663/kernel", "x_\u0663"),
        ("/kernel", ""),
        ("//kernel", ""),
        ("", ""),
    ],
)
def test_the_layer_follows_from_the_name_of_the_tensor(tensor, layer):
    assert layer_of(tensor) == layer


def described(scales, layout=INT8, name="net/dense_1/kernel", layer="dense"):
    """``(blocks, model)`` of a weight of small codes."""
    weight = random_weight(np.random.default_rng(0), SMALL, "float", (6, 4), bits=2)
    builder = FileBuilder((1, 4)).weight(replace(weight, scales=scales), SMALL, layout, name, layer)
    return tuple(builder.blocks), read_model(builder.finish())


def scales(kind, base, factors, block_shape):
    dtype = np.float32 if kind == "float" else np.int8
    return BlockScales(kind, np.float32(base), np.array(factors, dtype), block_shape)


def test_a_record_is_as_the_specification_says():
    tensors, _ = described(scales("integer", [0.5], [[1, 3], [4, 2], [8, 1]], (2, 2)))
    values = np.float32([[0.5, 1.5], [2, 1], [4, 0.5]])
    head, flags, place, blocks = bytes([2 | 1 << 4, 0]), bytes([64]), bytes([1]), bytes([2, 2])
    # Factors less 1 are 0, 2, 3, 1, 7, 0, of three bits each: 0b000_111_001_011_010_000.
    factors = bytes([3, 1]) + bytes([0b11010000, 0b01110010, 0b00])
    record = head + flags + place + blocks + factors
    read = b"net/dense_1/kernel" + np.array([6, 4], "<u4").tobytes() + values.tobytes()
    assert write_records(tensors) == record + zlib.crc32(record + read).to_bytes(4, "little")


def test_channels_of_float_scales_take_ten_bytes():
    tensors, _ = described(scales("float", [1], [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], (1, 4)))
    assert len(write_records(tensors)) == 10


def test_the_shift_scaler_takes_twelve_bytes():
    tensors, _ = described(scales("shift", [0.3], [[0], [-1], [-15], [-4], [-4], [-2]], (1, 4)))
    assert len(write_records(tensors)) == 12


def test_a_base_that_does_not_follow_is_stored():
    """float32(base * 3) / 3 is another number than the base."""
    base = np.float32([0.1, 0.3, 0.7, 1e-3, 0.9, 0.11])
    assert ((base * np.float32(3)) / np.float32(3) != base).any()
    factors = [[3], [1], [3], [3], [3], [3]]
    tensors, model = described(scales("integer", base, factors, (1, 4)))
    assert len(write_records(tensors)) == 12 + 4 * 6 + 2
    (found,) = read_records(write_records(tensors), model)
    assert found.base.tobytes() == base.tobytes()


@settings(max_examples=80)
@given(
    st.sampled_from(["float", "integer", "shift"]),
    st.sampled_from([(1, 4), (6, 4), (4, 4), (1, 1), (2, 3), (4, 2)]),
    st.booleans(),
    st.sampled_from([INT8, INLINE]),
    st.integers(0, 2**32 - 1),
)
def test_scales_come_back_to_the_bit(kind, block, shared, layout, seed):
    if kind == "float" and block[1] < 4:
        layout = INLINE
    rng = np.random.default_rng(seed)
    found = random_weight(rng, SMALL, kind, block, 2, shared_base=shared).scales
    if kind != "float":
        found = replace(found, base=np.exp(rng.uniform(-30, 3, found.base.shape)).astype(np.float32))
    tensors, model = described(found, layout)
    (blocks,) = read_records(write_records(tensors), model)
    assert blocks.base.tobytes() == found.base.tobytes()
    assert blocks.factors.tobytes() == found.factors.tobytes()
    assert blocks.base.shape == found.base.shape


def test_every_flipped_bit_is_refused():
    model = read_model(network().finish())
    records = write_records(metadata_of(model).tensors)
    for position in range(8 * len(records)):
        changed = bytearray(records)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(FormatError):
            read_records(bytes(changed), model)


def record(head=0x12, layout=0, flags=0, tensor=1, parts=()):
    out = PackedWriter()
    for value in (head, layout, flags):
        out.scalar("B", value)
    out.number(tensor)
    for kind, value in parts:
        if kind == "number":
            out.number(value)
        else:
            out.scalar(kind, value)
    return bytes(out.data)


N, B = "number", "B"
REFUSED = {
    "unknown scale kind 3": record(head=0x32, parts=[(N, 1), (N, 0)]),
    "unknown layout 99": record(layout=99, parts=[(N, 1), (N, 0)]),
    "does not exist": record(tensor=99),
    "of subgraph 7": record(flags=1, parts=[(N, 7)]),
    "blocks of 7 x 4 in 6 x 4": record(parts=[(N, 7), (N, 0)]),
    "two ways to tell": record(flags=8 | 16, parts=[(N, 2), (N, 0), (N, 1), (N, 1), (N, 0)]),
    "no output axis": record(flags=8, parts=[(N, 0)]),
    r"axes \(0, 0\)": record(flags=8, parts=[(N, 2), (N, 0), (N, 0)]),
    r"axes \(5, 1\)": record(flags=8, parts=[(N, 2), (N, 5), (N, 1)]),
    r"impossible shape \(\)": record(flags=4, parts=[(N, 0)]),
    "impossible shape ": record(flags=4, parts=[(N, 2), (N, 0), (N, 4)]),
    "lists 9 numbers": record(flags=4, parts=[(N, 9)]),
    "not where the layout int8": record(flags=32, parts=[(N, 1), (N, 0), (N, 1)]),
    "not where the layout inline": record(layout=3, parts=[(N, 1), (N, 0)]),
    "constant 77 of its scales does not exist": record(layout=3, flags=32, parts=[(N, 1), (N, 0), (N, 77)]),
    "its scales 'input' are no constant": record(layout=3, flags=32, parts=[(N, 1), (N, 0), (N, 0)]),
    "no float32 factors": record(layout=3, flags=32, parts=[(N, 1), (N, 0), (N, 1), (B, 0), ("b", 1)]),
    "not FLOAT16": record(layout=2, flags=32, parts=[(N, 1), (N, 0), (N, 1), (B, 0), ("b", 1)]),
    "float scales have no base": record(head=0x02, flags=64, parts=[(N, 1), (N, 0)]),
    "float blocks cannot lie in int8": record(head=0x02, parts=[(N, 1), (N, 2)]),
    "do not follow from scales": record(flags=64, parts=[(N, 1), (N, 0), (B, 255), ("b", 0)]),
    "do not follow from scales ": record(head=0x22, parts=[(N, 1), (N, 0), (B, 255), ("b", 0)]),
    "factors of 9 bits": record(parts=[(N, 1), (N, 0), (B, 9), ("b", 1)]),
    "more scales than the file can hold": record(flags=4, parts=[(N, 2), (N, 2**32 - 1), (N, 4), (N, 1), (N, 0)]),
    "6 output channels": record(flags=4, parts=[(N, 2), (N, 7), (N, 4), (N, 1), (N, 0), (B, 0), ("b", 1)]),
    "the checksum differs": record(parts=[(N, 1), (N, 0), (B, 0), ("b", 1), ("I", 0)]),
    "ends inside": record(parts=[(N, 1), (N, 0), (B, 8), ("b", 1)]),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_damaged_records_are_refused(problem):
    factors = [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]]
    _, model = described(scales("float", [1], factors, (1, 4)))
    message = problem.strip().replace("6 output channels", "6 scales for 7 output channels")
    with pytest.raises(FormatError, match=message):
        read_records(REFUSED[problem], model)


def test_zero_factors_and_wild_offsets_are_refused():
    _, model = described(scales("integer", [1], [[1, 1]] * 6, (1, 2)))
    for offset in (0, -1, 17, 127):
        parts = [(N, 1), (N, 2), (B, 8), ("b", offset), *[(B, 1)] * 12, ("I", 0)]
        with pytest.raises(FormatError):
            read_records(record(parts=parts), model)


def test_scales_in_a_constant_must_be_pointed_to():
    tensors, _ = described(scales("float", [1], [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], (1, 4)), INLINE)
    with pytest.raises(FormatError, match="layout inline needs a constant of scales"):
        write_records((replace(tensors[0], scales_tensor=None),))
    with pytest.raises(FormatError, match="layout int8 has no constant of scales"):
        write_records((replace(tensors[0], layout=INT8),))


def test_constants_of_other_shapes_are_refused():
    """Each element that a scale would come from lies inside the constant, or the constant is refused."""
    tensors, model = described(scales("float", [1], [[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], (1, 4)), INLINE)
    records = write_records(tensors)
    graph = model.subgraphs[0]
    constant = graph.tensors[tensors[0].scales_tensor]
    for shape in ((1, 1, 6), (2, 3), (6, 1, 1, 1, 1)):
        moved = replace(constant, shape=shape)
        changed = tuple(moved if tensor is constant else tensor for tensor in graph.tensors)
        other = replace(model, subgraphs=(replace(graph, tensors=changed),))
        with pytest.raises(VerificationError):
            read_records(records, other)
