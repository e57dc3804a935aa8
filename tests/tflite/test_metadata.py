import struct
from dataclasses import replace
from importlib import resources

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import CONFIG, VIEWS, FileBuilder, conv_layer, random_weight
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.tflite import metadata as metadata_module
from tfptq.tflite.blocks_schema import blocks_schema
from tfptq.tflite.digest import content_digest
from tfptq.tflite.flatbuffer import read_message
from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.layouts import COMPOSITE, FULLY_CONNECTED_INT4, IM2COL_INT2, IM2COL_INT4, INLINE, INT4, INT8, NATIVE
from tfptq.tflite.metadata import (
    BlockMetadata,
    FormatError,
    TensorBlocks,
    attach,
    decode,
    encode,
    read,
)
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.schema import parse_schema


def weight_and_view(kind="shift", block=None, layout="int8", operator="CONV_2D", bits=4, seed=0, **options):
    rng = np.random.default_rng(seed)
    view = VIEWS[operator](
        {"CONV_2D": (6, 3, 3, 5), "DEPTHWISE_CONV_2D": (1, 3, 3, 6), "FULLY_CONNECTED": (6, 5)}[operator]
    )
    if kind == "half":  # float scales that are float16 numbers
        weight = random_weight(rng, view, "float", block, bits)
        factors = weight.scales.factors.astype(np.float16).astype(np.float32)
        return replace(weight, scales=replace(weight.scales, factors=factors)), view
    return random_weight(rng, view, kind, block, bits, **options), view


def blocks_of(weight, view, **changes):
    arguments = {"tensor": 3, "tensor_name": "conv/kernel", "layer": "conv", "layout": INT8, **changes}
    return TensorBlocks.from_quantized_weight(weight, view=view, **arguments)


def file_of(*cases, metadata=None):
    """A file with the weights of ``CASES`` by name, or with ``(weight, view)`` each."""
    builder = FileBuilder((1, 4))
    for case in cases:
        options, changes = CASES[case] if isinstance(case, str) else ({}, {})
        weight, view = weight_and_view(**options) if isinstance(case, str) else case
        if changes.get("subgraph"):
            builder.new_subgraph()
        layout = changes.get("layout", INT8)
        builder.weight(weight, view, layout, changes.get("tensor_name"), changes.get("layer"))
    versions = {"tfptq": "1.0", "keras": "3.1"}
    described = BlockMetadata(
        **{"config": CONFIG, "seed": 2**64 - 1, "versions": versions, **(metadata or {})}, tensors=tuple(builder.blocks)
    )
    return builder.finish(described), described


def message_of(*cases):
    """``(message, model)`` with the weights of cases."""
    file, described = file_of(*cases)
    return encode(described), read_model(file)


CASES = {
    "wes": ({}, {"tensor_name": "model/conv2d_1_2/convolution", "layer": "conv2d_1"}),
    "tensor": ({"kind": "float", "block": (6, 5)}, {"tensor_name": "kernel"}),
    "channel": ({"kind": "float"}, {"layer": "other"}),
    "integer": ({"kind": "integer", "block": (4, 2), "shared_base": False}, {}),
    "one base": ({"kind": "integer", "block": (2, 2)}, {}),
    "integer rows": ({"kind": "integer", "block": (4, 5), "shared_base": False}, {}),
    "shift blocks": ({"kind": "shift", "block": (2, 3)}, {"subgraph": 1}),
    "shift rows": ({"kind": "shift", "block": (1, 5), "shared_base": False}, {}),
    "shift": ({"kind": "shift", "block": (1, 2), "shared_base": False}, {}),
    "float blocks": ({"kind": "float", "block": (2, 3)}, {"layout": INLINE}),
    "inline": ({"kind": "float", "block": (5, 4)}, {"layout": INLINE}),
    "inline integers": ({"kind": "integer", "block": (4, 2), "shared_base": False}, {"layout": INLINE}),
    "composite shifts": ({"kind": "shift", "block": (4, 2), "shared_base": False}, {"layout": COMPOSITE}),
    "inline wes": ({}, {"layout": INLINE}),
    "native": ({"kind": "half", "operator": "FULLY_CONNECTED", "block": (1, 2)}, {"layout": NATIVE}),
    "native rows": ({"kind": "half", "operator": "FULLY_CONNECTED", "block": (4, 2)}, {"layout": NATIVE}),
    "depthwise": ({"operator": "DEPTHWISE_CONV_2D"}, {"layout": INT4}),
    "depthwise inline": ({"operator": "DEPTHWISE_CONV_2D", "kind": "float", "block": (4, 1)}, {"layout": INLINE}),
    "dense": ({"operator": "FULLY_CONNECTED", "kind": "integer", "block": (1, 2)}, {}),
    "dense int4": ({"operator": "FULLY_CONNECTED", "kind": "float"}, {"layout": FULLY_CONNECTED_INT4}),
    "gathered": ({"kind": "float"}, {"layout": IM2COL_INT4}),
    "gathered blocks": ({"kind": "integer", "block": (4, 2), "bits": 2}, {"layout": IM2COL_INT2}),
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case):
    file, described = file_of(case)
    (expected,), found = described.tensors, read(file)
    (blocks,) = found.tensors
    assert encode(replace(found, digest=b"")) == encode(described)
    assert found.digest == content_digest(read_model(file))
    assert found.seed == 2**64 - 1
    assert found.versions == {"tfptq": "1.0", "keras": "3.1"}
    for name in blocks.__dataclass_fields__:
        value = getattr(expected, name)
        if isinstance(value, np.ndarray):
            assert getattr(blocks, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(blocks, name), value)
        else:
            assert getattr(blocks, name) == value, name


def test_many_weights_are_told_apart():
    file, described = file_of(*CASES)
    assert [blocks.layer for blocks in read(file).tensors] == [blocks.layer for blocks in described.tensors]


@pytest.mark.parametrize(
    "case, granularity",
    [("wes", "tensor"), ("tensor", "tensor"), ("channel", "channel"), ("integer", "block"), ("depthwise", "tensor")],
)
def test_granularity(case, granularity):
    _, described = file_of(case)
    assert described.tensors[0].granularity == granularity


@settings(max_examples=60)
@given(st.sampled_from(["shift", "integer"]), st.integers(1, 7), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_stored_codes_and_row_scales_are_the_int8_form(kind, m, n, shared, seed):
    weight, view = weight_and_view(kind, (min(m, 6), min(n, 5)), shared_base=shared, seed=seed)
    blocks = blocks_of(weight, view)
    codes, scales = weight.int8_form()
    expanded = blocks.scales().expand(blocks.outputs, blocks.inputs, blocks.multipliers())
    assert np.array_equal(weight.codes * expanded, codes)
    assert np.array_equal(blocks.row_scales(), scales)


def test_blocks_larger_than_the_kernel_are_clipped():
    weight, view = weight_and_view("float", (6, 5))
    large = QuantizedWeight(weight.codes, BlockScales("float", weight.scales.base, weight.scales.factors, (64, 64)), 4)
    assert blocks_of(large, view).block_shape == (6, 5)


def test_the_number_of_the_reserved_layout_is_refused():
    """5 stood for a layout Float32 in drafts of the format."""
    message, model = message_of("wes")
    with pytest.raises(FormatError, match="layer 'conv2d_1'.*unknown layout 5"):
        decode(changed(message, weights=lambda records: records[:1] + b"\5" + records[2:]), model)


def changed(message, **changes):
    """The message with other values; the record of a weight by a function of its bytes."""
    root = {name: value for name, value in vars(read_message(message, blocks_schema())).items() if name[0] != "t"}
    if "weights" in changes:
        changes["weights"] = np.frombuffer(changes["weights"](root["weights"].tobytes()), np.uint8)
    return write_message({**root, "versions": [], **changes}, blocks_schema())


def test_attach_replaces_and_read_finds():
    builder = FileBuilder((1, 8, 8, 5))
    conv_layer(builder, np.random.default_rng(0), (6, 3, 3, 5))
    file = builder.finish()
    assert read(file).tensors[0].layer == "layer_0"
    assert read(builder.finish(None)) is not None
    model = schema.ModelT.InitFromPackedBuf(file)
    attach(model, BlockMetadata(CONFIG, 99, {}, ()))
    assert len(model.metadata) == 1
    packer = flatbuffers.Builder(1024)
    packer.Finish(model.Pack(packer), b"TFL3")
    assert read(bytes(packer.Output())).seed == 99


def test_read_takes_paths_and_files_without_metadata(tmp_path):
    builder = FileBuilder((1, 8, 8, 5))
    conv_layer(builder, np.random.default_rng(0), (6, 3, 3, 5))
    path = tmp_path / "plain.tflite"
    path.write_bytes(builder.finish(None))
    assert read(path) is None
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "absent.tflite"))


def test_newer_and_missing_schema_versions_are_refused():
    message, model = message_of("wes")
    with pytest.raises(FormatError, match="schema version 3; this tfptq reads up to 2"):
        decode(changed(message, schema_version=3), model)
    with pytest.raises(FormatError, match="no schema version"):
        decode(changed(message, schema_version=0), model)


def test_packages_must_be_pairs():
    message, model = message_of("wes")
    assert decode(changed(message, packages=""), model).versions == {}
    for packages in ("tfptq", "tfptq 1 2", "tfptq 1\n", " 1", "tfptq "):
        with pytest.raises(FormatError, match="name and a version"):
            decode(changed(message, packages=packages), model)
    with pytest.raises(FormatError, match="'my package' is no name"):
        encode(BlockMetadata(CONFIG, 0, {"my package": "1"}, ()))


def test_older_files_are_read(monkeypatch):
    """A reader of a later version, whose tables have more fields, reads a file of this version."""
    text = (resources.files("tfptq.tflite") / "blocks.fbs").read_text()
    later = parse_schema(
        text.replace("  packages:string;", "  packages:string;\n").replace(
            "  weights:[ubyte];", "  weights:[ubyte];\n  note:string;\n  extra:int = 7;"
        )
    )
    message, model = message_of("wes")
    monkeypatch.setattr(metadata_module, "blocks_schema", lambda: later)
    monkeypatch.setattr(metadata_module, "SCHEMA_VERSION", 3)
    assert decode(message, model).schema_version == 2
    root = read_message(message, later)
    assert (root.note, root.extra) == ("", 7)


CONTRADICTIONS = {
    "bits": {"bits": 7},
    "scale kind": {"scale_kind": "double"},
    "negative index": {"tensor": -1},
    "impossible shape": {"shape": ()},
    "axes": {"output_axis": 4},
    "axes ": {"input_axes": (0,)},
    "blocks of 9": {"block_shape": (9, 5)},
    "blocks of 1 x 0": {"block_shape": (1, 0)},
    "factors": {"factors": np.zeros((5, 1), np.int8)},
    "base": {"base": np.ones(2, np.float32)},
    "finite and positive": {"base": np.float32([np.nan])},
    "finite and positive ": {"base": np.float32([-1.0])},
    "finite and positive  ": {"base": np.float32([np.inf])},
    "finite and positive   ": {"base": np.float32([1e-45])},
    "factor out of range": {"factors": np.full((6, 1), 16, np.int8)},
}


@pytest.mark.parametrize("problem", CONTRADICTIONS)
def test_contradictions_are_refused(problem):
    good = blocks_of(*weight_and_view())
    values = {name: getattr(good, name) for name in good.__dataclass_fields__}
    with pytest.raises(FormatError, match=problem.strip()):
        TensorBlocks(**{**values, **CONTRADICTIONS[problem]})


def test_float_blocks_have_no_int8_layout():
    with pytest.raises(FormatError, match="float blocks cannot lie in int8"):
        blocks_of(*weight_and_view("float", (2, 3)))


def test_two_output_axes_are_refused():
    weight, _ = weight_and_view()
    view = WeightView((2, 3, 9, 5), (0, 1), (3,), (2,))
    with pytest.raises(FormatError, match="output axes"):
        blocks_of(weight, view)


def test_metadata_contradictions_are_refused():
    blocks = blocks_of(*weight_and_view())
    for changes, problem in (
        ({"config": "{"}, "not JSON"),
        ({"config": "[" * 100_000}, "nested deeper than 32"),
        ({"config": "[]"}, "not a JSON object"),
        ({"seed": 2**64}, "seed"),
        ({"tensors": (blocks, blocks)}, "twice"),
    ):
        with pytest.raises(FormatError, match=problem):
            BlockMetadata(**{"config": CONFIG, "seed": 0, "versions": {}, "tensors": (blocks,), **changes})


GOOD, MODEL = message_of("integer", "float blocks", "wes", "channel")


def decode_or_refuse(message):
    """Decoding ends, and in nothing but a value or a FormatError."""
    try:
        return decode(message, MODEL)
    except FormatError:
        return None


@pytest.mark.parametrize("message", [b"", b"TPQB", b"\0" * 8, b"\xff" * 64, GOOD[4:], GOOD[:4] + b"TFL3" + GOOD[8:]])
def test_rubbish_is_refused(message):
    with pytest.raises(FormatError):
        decode(message, MODEL)


def test_every_truncation_is_survived():
    for length in range(len(GOOD)):
        decode_or_refuse(GOOD[:length])


def test_every_byte_set_to_extremes_is_survived():
    for position in range(len(GOOD)):
        for value in (0x00, 0x7F, 0x80, 0xFF, GOOD[position] ^ 1):
            decode_or_refuse(GOOD[:position] + bytes([value]) + GOOD[position + 1 :])


def test_every_word_set_to_extremes_is_survived():
    for position in range(0, len(GOOD) - 3):
        for value in (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            decode_or_refuse(GOOD[:position] + struct.pack("<I", value) + GOOD[position + 4 :])


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_mutations_are_survived(changes):
    message = bytearray(GOOD)
    for position, data in changes:
        message[position : position + len(data)] = data
    decode_or_refuse(bytes(message[: len(GOOD)]))


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_are_survived(data):
    decode_or_refuse(struct.pack("<I", 8) + b"TPQB" + data)


def test_shared_tables_cannot_blow_up_the_work():
    """A vector of many offsets to one table that holds a vector of many offsets to one table, ..."""
    schema_text = 'file_identifier "BOMB"; root_type Node; table Node { children:[Node]; }'
    builder = flatbuffers.Builder(1024)
    node = None
    for _ in range(9):
        vector = None
        if node is not None:
            builder.StartVector(4, 1000, 4)
            for _ in range(1000):
                builder.PrependUOffsetTRelative(node)
            vector = builder.EndVector()
        builder.StartObject(1)
        if vector is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        node = builder.EndObject()
    builder.Finish(node, b"BOMB")
    with pytest.raises(FormatError, match="too long"):
        read_message(bytes(builder.Output()), parse_schema(schema_text))


def test_nesting_is_bounded():
    text = 'file_identifier "DEEP"; root_type Node; table Node { child:Node; }'
    builder = flatbuffers.Builder(1024)
    node = None
    for _ in range(100):
        builder.StartObject(1)
        if node is not None:
            builder.PrependUOffsetTRelativeSlot(0, node, 0)
        node = builder.EndObject()
    builder.Finish(node, b"DEEP")
    with pytest.raises(FormatError, match="nested deeper"):
        read_message(bytes(builder.Output()), parse_schema(text))


def test_schema_text_that_is_not_understood_is_refused():
    for text, problem in (
        ("table A { x:int; }", "root_type"),
        ('file_identifier "ABCD"; root_type A; table A { x:int32_t; }', "int32_t"),
        ('file_identifier "ABCD"; root_type A; table A { x:int (key); }', "cannot understand"),
    ):
        with pytest.raises(ValueError, match=problem):
            parse_schema(text)
