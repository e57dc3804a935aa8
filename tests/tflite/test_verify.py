import json
import struct
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import CONFIG, VIEWS, FileBuilder, conv_layer, half_scales, network, random_weight, with_texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfptq.core.blocks import BlockScales
from tfptq.npu import Executor
from tfptq.tflite.inspect import inspect
from tfptq.tflite.layouts import COMPOSITE, INLINE, INT8, NATIVE
from tfptq.tflite.metadata import BlockMetadata, FormatError, TensorBlocks
from tfptq.tflite.verify import VerificationError, verify

#: What ``network`` made when version 1 of the metadata was the newest.
OLD = Path(__file__).parent / "data" / "version_1_network.tflite"


def test_a_good_file_passes(tmp_path):
    path = tmp_path / "good.tflite"
    path.write_bytes(network().finish())
    result = verify(path)
    assert {check.tensor for check in result.checks} == {f"layer_{index}/kernel" for index in range(4)}
    assert "layer_1/kernel: int4 tensor with 3-bit codes, 4 scales equal the metadata, bias" in result.render()
    assert "layer_2/kernel: int8 tensor with 4-bit codes, 6 scales equal the metadata, bias" in result.render()


def test_numbers_of_one_are_singular():
    builder = FileBuilder((1, 6))
    view = VIEWS["FULLY_CONNECTED"]((4, 6))
    builder.layer("FULLY_CONNECTED", random_weight(np.random.default_rng(0), view, "float", (4, 6)), view)
    lines = verify(builder.finish()).render().splitlines()
    assert "1 scale equals the metadata" in lines[0] and lines[1] == "1 tensor verified"


def test_json_has_every_check():
    result = verify(network().finish())
    found = json.loads(result.to_json())["checks"]
    assert [(item["tensor"], item["statement"]) for item in found] == [
        (check.tensor, check.statement) for check in result.checks
    ]


def tensor_named(builder, name):
    return next(tensor for tensor in builder.graph.tensors if tensor.name == name)


def set_codes(builder, name, position, value):
    buffer = builder.model.buffers[tensor_named(builder, name).buffer]
    buffer.data = buffer.data.copy()
    buffer.data.view(np.int8)[position] = value


def set_quantization(field, position, value):
    def change(builder, name):
        getattr(tensor_named(builder, name).quantization, field)[position] = value

    return change


def nudge_scale(builder, name):
    scales = tensor_named(builder, name).quantization.scale
    scales[-1] = np.nextafter(scales[-1], np.float32(1))


def set_axis(builder, name):
    # A kernel with as many inputs as outputs, so that the file itself stays consistent.
    tensor_named(builder, name).quantization.quantizedDimension = 3


def set_field(field, value):
    return lambda builder, name: setattr(tensor_named(builder, name), field, value)


DAMAGES = {
    "renamed": ("layer_0/kernel", set_field("name", "other"), "layer_0.*name 'other'"),
    "other type": ("layer_0/kernel", set_field("type", schema.TensorType.UINT8), "layer_0.*UINT8"),
    "other shape": ("layer_0/kernel", set_field("shape", [4, 9, 1, 3]), r"layer_0.*\(4, 9, 1, 3\)"),
    "other scale": (
        "layer_0/kernel",
        nudge_scale,
        "layer_0/kernel.*1 scale differs.*output channel 3: 8.68406[0-9]e-07 in",
    ),
    "one scale": ("layer_3/kernel", nudge_scale, "layer_3/kernel.*2 scales differ.*output channel 0"),
    "nan scale": (
        "layer_0/kernel",
        set_quantization("scale", 1, np.nan),
        "layer_0/kernel.*1 scale differs.*: nan in the file, 5",
    ),
    "zero point": ("layer_0/kernel", set_quantization("zeroPoint", 2, 1), "layer_0/kernel.*zero point"),
    "code -128": ("layer_0/kernel", lambda b, n: set_codes(b, n, 7, -128), "layer_0.*not between -127 and 127"),
    "code -8": ("layer_1/kernel", lambda b, n: set_codes(b, n, 3, 0x08), "layer_1.*not between -4 and 3"),
    "not a multiple": ("layer_2/kernel", lambda b, n: set_codes(b, n, slice(0, 30), 113), "layer_2.*multiple"),
    "bias scale": ("layer_0/bias", nudge_scale, "layer_0/bias.*bias scales"),
    "bias zero point": ("layer_2/bias", set_quantization("zeroPoint", 0, 3), "layer_2/bias.*zero point"),
    "bias type": ("layer_2/bias", set_field("type", schema.TensorType.FLOAT32), "layer_2/bias.*FLOAT32"),
    "input scale": ("input", set_quantization("scale", 0, 0.051), "layer_0/bias.*those of 'input'"),
    "not a constant": ("layer_0/kernel", set_field("buffer", 0), "layer_0.*not a constant"),
}


#: What a checksum tells, where metadata of version 1 repeats names, shapes and scales.
BY_CHECKSUM = {
    "renamed": "'other': the checksum differs",
    "other shape": "layer_0/kernel': the checksum differs",
    "other scale": "layer_0/kernel': its scales are not powers of two apart",
    "nan scale": "layer_0/kernel': its scales are not powers of two apart",
    "one scale": "layer_3/kernel': the checksum differs",
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_disagreement_is_found_and_named(damage, version):
    name, change, message = DAMAGES[damage]
    if version == 2:
        message = BY_CHECKSUM.get(damage, message)
    opened = Opened(network().finish() if version == 2 else OLD.read_bytes())
    assert verify(opened.finish())
    change(opened, name)
    with pytest.raises(VerificationError, match=message):
        verify(opened.finish())


def test_scales_that_no_checksum_covers_are_compared():
    """Each row of blocks reads its scale from its first output channel; a layer with one base, from its first row."""
    builder = network()
    scales = tensor_named(builder, "layer_2/kernel").quantization.scale
    scales[3] = np.nextafter(scales[3], np.float32(1))
    with pytest.raises(VerificationError, match="layer_2/kernel.*1 scale differs.*output channel 3: "):
        verify(builder.finish())


class Opened:
    """A file that can be changed, with the fields of ``FileBuilder``."""

    def __init__(self, file):
        self.model = with_texts(schema.ModelT.InitFromPackedBuf(file))
        self.graph = self.model.subgraphs[0]

    def finish(self):
        return pack(self.model)


def test_wrong_axis_is_found():
    builder = FileBuilder((1, 5, 5, 4))
    conv_layer(builder, np.random.default_rng(0), (4, 3, 3, 4))
    set_axis(builder, "layer_0/kernel")
    with pytest.raises(VerificationError, match="scales along axis 3, expected 0"):
        verify(builder.finish())


def test_descriptions_of_absent_tensors_are_found():
    builder = network()
    first = builder.blocks[0]
    values = {name: getattr(first, name) for name in first.__dataclass_fields__}
    for change in ({"tensor": 999}, {"tensor": 2**32 - 1}, {"subgraph": 1}):
        metadata = BlockMetadata(CONFIG, 0, {}, (TensorBlocks(**{**values, **change}),))
        with pytest.raises(VerificationError, match="does not exist"):
            verify(network().finish(metadata))


def test_files_without_metadata_are_refused():
    with pytest.raises(VerificationError, match="carries no block metadata"):
        verify(network().finish(None))


def test_huge_shapes_in_the_metadata_allocate_nothing():
    scales = BlockScales("float", np.ones(1, np.float32), np.ones((1, 1), np.float32), (2**31, 2**31))
    values = {"bits": 8, "scale_kind": "float", "layout": INT8, "block_shape": scales.block_shape}
    blocks = TensorBlocks(
        tensor=1, tensor_name="layer_0/kernel", layer="x", shape=(2**31, 2**31), output_axis=0, input_axes=(1,),
        base=scales.base, factors=scales.factors, **values,
    )  # fmt: skip
    file = network().finish(BlockMetadata(CONFIG, 0, {}, (blocks,)))
    with pytest.raises(VerificationError, match="shape"):
        verify(file)


# Layouts other than int8 and int4.


def unpacked_builder(layout=INLINE):
    """Constant(INT4) -> DEQUANTIZE -> MUL(block scales) -> RESHAPE -> FULLY_CONNECTED."""
    view = VIEWS["FULLY_CONNECTED"]((4, 6))
    weight = random_weight(np.random.default_rng(0), view, "float", (2, 3), 4)
    return FileBuilder((1, 6)).float_layer("FULLY_CONNECTED", weight, view, layout)


@pytest.mark.parametrize("layout", [INLINE, COMPOSITE])
def test_scales_outside_the_tensor(layout):
    opened = Opened(unpacked_builder(layout).finish())
    assert "layer_0/codes: " in verify(opened.finish()).render()
    graph = opened.model.subgraphs[-1]
    scales = next(tensor for tensor in graph.tensors if tensor.name.endswith("/scales"))
    values = opened.model.buffers[scales.buffer].data.view(np.float32)
    opened.model.buffers[scales.buffer].data = np.nextafter(values, np.float32(9)).view(np.uint8)
    with pytest.raises(VerificationError, match="'layer_0/codes': the checksum differs"):
        verify(opened.finish())


def native_file(size=32, change=0.0):
    view = VIEWS["FULLY_CONNECTED"]((4, 64))
    weight = half_scales(random_weight(np.random.default_rng(0), view, "float", (1, 32), 4))
    opened = Opened(FileBuilder((1, 64)).float_layer("FULLY_CONNECTED", weight, view, NATIVE).finish())
    tensor_named(opened, "layer_0/codes").quantization.details.blockSize = size
    scales = opened.model.buffers[tensor_named(opened, "layer_0/codes/scales").buffer]
    scales.data = (scales.data.view(np.float16) + np.float16(change)).view(np.uint8)
    return opened.finish()


def test_native_blocks():
    assert "8 block scales equal the metadata" in verify(native_file()).render()
    with pytest.raises(VerificationError, match="block size 16"):
        verify(native_file(size=16))
    with pytest.raises(VerificationError, match="'layer_0/codes': the checksum differs"):
        verify(native_file(change=0.01))


# Hostile files.

GOOD = network().finish()


def survive(file):
    """Every entry point ends, and in nothing but a value or a ValueError that says what is wrong."""
    for function in (inspect, verify, Executor):
        try:
            function(file)
        except ValueError as error:
            assert str(error)


def test_rubbish_is_refused():
    for file in (b"", b"\0" * 100, GOOD[:100], b"PK" + GOOD[2:], GOOD[:4] + b"TPQB" + GOOD[8:]):
        with pytest.raises(FormatError):
            verify(file)


def test_truncations_are_survived():
    for length in range(0, len(GOOD), 23):
        survive(GOOD[:length])


def test_words_set_to_extremes_are_survived():
    extremes = (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    for position in range(0, len(GOOD) - 3, 8):
        value = extremes[position // 8 % 4]
        survive(GOOD[:position] + struct.pack("<I", value) + GOOD[position + 4 :])


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_mutations_are_survived(changes):
    file = bytearray(GOOD)
    for position, data in changes:
        file[position : position + len(data)] = data
    survive(bytes(file[: len(GOOD)]))


def pack(model):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


STRUCTURE = {
    "index 77": lambda model: setattr(model.subgraphs[0].operators[0], "inputs", [0, 77]),
    "operator codes": lambda model: setattr(model.subgraphs[0].operators[0], "opcodeIndex", 9),
    "inputs of a subgraph": lambda model: setattr(model.subgraphs[0], "inputs", [-1]),
    "buffers of the tensor": lambda model: setattr(model.subgraphs[0].tensors[0], "buffer", 1000),
    "buffers of the metadata": lambda model: setattr(model.metadata[0], "buffer", 1000),
    "unknown type": lambda model: setattr(model.subgraphs[0].tensors[0], "type", 99),
    "no subgraph": lambda model: setattr(model, "subgraphs", []),
    "schema version": lambda model: setattr(model, "version", 4),
    r"shape \(-1": lambda model: setattr(model.subgraphs[0].tensors[0], "shape", [-1]),
    "needs 432": lambda model: setattr(model.subgraphs[0].tensors[1], "shape", [4, 6, 6, 3]),
    "leaves the file": lambda model: model.buffers.append(schema.BufferT(offset=1 << 20, size=1 << 60)),
    "2 metadata entries": lambda model: model.metadata.append(model.metadata[0]),
    "has 3 scales": lambda model: setattr(model.subgraphs[0].tensors[0].quantization, "scale", [1.0, 1.0, 1.0]),
    "has 4 scales along axis 3, whose size is 3": lambda model: setattr(
        model.subgraphs[0].tensors[1].quantization, "quantizedDimension", 3
    ),
}


@pytest.mark.parametrize("problem", STRUCTURE)
def test_structural_damage_is_named(problem):
    model = schema.ModelT.InitFromPackedBuf(GOOD)
    STRUCTURE[problem](model)
    with pytest.raises(FormatError, match=problem):
        verify(pack(model))
