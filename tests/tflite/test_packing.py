import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.packing import PackedReader, PackedWriter


def test_parts_come_back_in_order():
    out = PackedWriter()
    out.scalar("B", 200)
    out.scalar("b", -3)
    out.scalar("I", 2**32 - 1)
    out.number(300)
    out.numbers((0, 127, 128, 2**32 - 1))
    out.text("größe")
    out.floats(np.float32([1.5, -2.0]))
    source = PackedReader(bytes(out.data))
    assert (source.scalar("B"), source.scalar("b"), source.scalar("I")) == (200, -3, 2**32 - 1)
    assert source.number() == 300
    assert source.numbers(4) == (0, 127, 128, 2**32 - 1)
    assert source.text() == "größe"
    assert source.floats(2).tolist() == [1.5, -2.0]
    assert source.at_end


def test_bytes_are_those_of_the_specification():
    out = PackedWriter()
    out.number(300)
    out.scalar("I", 1)
    out.bits(np.array([1, 2, 3, 5]), 3)  # lowest bits first: 0b101_011_010_001
    assert bytes(out.data) == b"\xac\x02" + b"\1\0\0\0" + bytes([0b11010001, 0b1010])


@given(st.lists(st.integers(0, 255), min_size=1), st.integers(1, 8))
def test_bits_of_any_width(values, width):
    values = np.array(values) % 2**width
    out = PackedWriter()
    out.bits(values, width)
    assert len(out.data) == -(-len(values) * width // 8)
    source = PackedReader(bytes(out.data))
    np.testing.assert_array_equal(source.bits(len(values), width), values)
    assert source.at_end


@pytest.mark.parametrize(
    ("data", "read", "problem"),
    [
        (b"", lambda source: source.scalar("B"), "ends inside"),
        (b"\1\2\3", lambda source: source.scalar("I"), "ends inside"),
        (b"\x80", lambda source: source.number(), "ends inside"),
        (b"\x80" * 5 + b"\0", lambda source: source.number(), "more than 32 bits"),
        (b"\xff\xff\xff\xff\x10", lambda source: source.number(), "more than 32 bits"),
        (b"\x05abc", lambda source: source.text(), "ends inside"),
        (b"\x01\xff", lambda source: source.text(), "not UTF-8"),
        (b"\x09" + b"\1" * 9, lambda source: source.numbers(8), "lists 9 numbers where there can be 8"),
        (b"abc", lambda source: source.floats(2**30), "ends inside"),
        (b"abc", lambda source: source.bits(2**40, 8), "ends inside"),
    ],
)
def test_what_is_not_there_is_refused(data, read, problem):
    with pytest.raises(FormatError, match=problem):
        read(PackedReader(data))
