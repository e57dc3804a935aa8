import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.tflite.flatbuffer import read_message
from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.schema import parse_schema

SCHEMA = parse_schema("""
file_identifier "TEST";
root_type Root;
enum Colour : ubyte { Red, Green }
table Root { small:byte; old:[byte] (deprecated); number:double = 0.5; colour:Colour; name:string; flag:bool;
  shape:[uint]; names:[string]; children:[Child]; child:Child; }
table Child { value:ulong = 7; codes:[byte]; }
""")
CHILD = st.fixed_dictionaries(
    {},
    optional={
        "value": st.integers(0, 2**64 - 1),
        "codes": st.lists(st.integers(-128, 127), max_size=5).map(lambda codes: np.array(codes, np.int8)),
    },
)
ROOT = st.fixed_dictionaries(
    {},
    optional={
        "small": st.integers(-128, 127),
        "number": st.floats(allow_nan=False),
        "colour": st.integers(0, 1),
        "name": st.text(st.characters(exclude_categories=["Cs"])),
        "flag": st.integers(0, 1),
        "shape": st.lists(st.integers(0, 2**32 - 1), max_size=4),
        "names": st.lists(st.text("ab\u00e9"), max_size=3),
        "children": st.lists(CHILD, max_size=3),
        "child": CHILD,
    },
)
DEFAULTS = {"small": 0, "number": 0.5, "colour": 0, "name": "", "flag": 0, "shape": [], "names": [], "children": []}


def assert_child(found, values):
    assert found.value == values.get("value", 7)
    assert list(found.codes) == list(values.get("codes", []))


@given(ROOT)
def test_what_is_written_is_read(values):
    found = read_message(write_message(values, SCHEMA), SCHEMA)
    assert not hasattr(found, "old")
    for name in set(DEFAULTS) - {"children", "shape"}:
        assert getattr(found, name) == values.get(name, DEFAULTS[name])
    assert list(found.shape) == values.get("shape", [])
    assert (found.child is None) == ("child" not in values)
    for child, written in zip(found.children, values.get("children", []), strict=True):
        assert_child(child, written)
    if "child" in values:
        assert_child(found.child, values["child"])


def test_the_official_library_reads_it():
    message = write_message({"small": -3, "name": "a", "children": [{"value": 9}, {"codes": [1, 2]}]}, SCHEMA)
    assert flatbuffers.util.BufferHasIdentifier(message, 0, b"TEST")
    table = flatbuffers.table.Table(bytearray(message), flatbuffers.encode.Get(flatbuffers.packer.uoffset, message, 0))
    flags = flatbuffers.number_types
    assert table.Get(flags.Int8Flags, table.Pos + table.Offset(4)) == -3
    assert table.Offset(6) == 0
    assert table.String(table.Pos + table.Offset(12)) == b"a"
    assert table.VectorLen(table.Offset(20)) == 2
    child = flatbuffers.table.Table(table.Bytes, table.Indirect(table.Vector(table.Offset(20))))
    assert child.Get(flags.Uint64Flags, child.Pos + child.Offset(4)) == 9


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="table Child has no field extra"):
        write_message({"child": {"extra": 1}}, SCHEMA)
    with pytest.raises(ValueError, match="table Root has no field old"):
        write_message({"old": [1]}, SCHEMA)
