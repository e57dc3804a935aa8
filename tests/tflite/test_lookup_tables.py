import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import VIEWS, FileBuilder, network, random_weight
from tflite_micro import runtime

from tfptq.tflite.inspect import inspect
from tfptq.tflite.layouts import INT4, INT8
from tfptq.tflite.lookup_tables import compress_for_micro
from tfptq.tflite.metadata import FormatError, read
from tfptq.tflite.model import TFLiteModel

#: Operator -> shapes of its kernel and of its output, for an input of (1, 6, 6, 8).
LAYERS = {
    "CONV_2D": ((40, 3, 3, 8), (1, 6, 6, 40)),
    "DEPTHWISE_CONV_2D": ((1, 13, 13, 8), (1, 6, 6, 8)),
    "TRANSPOSE_CONV": ((12, 5, 5, 8), (1, 6, 6, 12)),
    "FULLY_CONNECTED": ((10, 288), (1, 10)),
}


def layer_of(kind, bits, layout=INT8):
    """A file of one operator, with codes of a width and a scale per channel."""
    rng = np.random.default_rng(bits)
    kernel, output_shape = LAYERS[kind]
    view = VIEWS[kind](kernel)
    weight = random_weight(rng, view, "float", bits=bits)
    options = {} if kind == "FULLY_CONNECTED" else {"strideW": 1, "strideH": 1}
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = 1
    taps = view.view_shape[1] * view.view_shape[2]
    # The root mean square of outputs is about 40 steps of their grid; that of inputs is 3.7.
    grid = 3.7 / 40 * float(np.sqrt(taps * np.mean(np.square(weight.dequantize())))), 5
    builder = FileBuilder((1, 6, 6, 8))
    builder.layer(kind, weight, view, output_shape=output_shape, layout=layout, bias=None, grid=grid, **options)
    return builder


def decodes(data):
    """Kinds of the operators that DECODE operators stand in front of."""
    model = TFLiteModel(data)
    kinds = [model.operator_name(operator) for operator in model.operators]
    return [kinds[at + 1] for at, kind in enumerate(kinds) if kind == "CUSTOM"]


def micro_outputs(data):
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=1 << 20)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(3):
        interpreter.set_input(rng.integers(-128, 128, (1, 6, 6, 8)).astype(np.int8), 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0).copy())
    return np.stack(found)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", LAYERS)
def test_tflite_micro_computes_the_same(kind, bits):
    data = layer_of(kind, bits).finish()
    found = compress_for_micro(data)
    assert decodes(found) == [kind]
    outputs = micro_outputs(data)
    assert len(np.unique(outputs)) > 20
    np.testing.assert_array_equal(micro_outputs(found), outputs)


def test_weights_take_their_bits():
    data = layer_of("FULLY_CONNECTED", 3).finish(None)
    assert len(compress_for_micro(data)) < len(data) - 2880 * 5 // 8 + 256


def test_kernels_with_equal_values_share_a_table():
    model = TFLiteModel(compress_for_micro(two_convolutions().finish()))
    tables = [operator.inputs[1] for operator in model.operators if model.operator_name(operator) == "CUSTOM"]
    assert len(tables) == 2 and tables[0] == tables[1]


def test_large_kernels_can_be_left():
    builder = two_convolutions()
    view = VIEWS["FULLY_CONNECTED"]((10, 288))
    weight = random_weight(np.random.default_rng(1), view, "float", bits=4)
    data = builder.layer("FULLY_CONNECTED", weight, view, output_shape=(1, 10)).finish()
    assert decodes(compress_for_micro(data)) == ["CONV_2D", "CONV_2D", "FULLY_CONNECTED"]
    assert decodes(compress_for_micro(data, largest_kernel=2000)) == ["CONV_2D", "CONV_2D"]


def two_convolutions():
    builder = FileBuilder((1, 6, 6, 8), scale=0.5)
    view = VIEWS["CONV_2D"]((8, 5, 5, 8))
    options = {"bias": None, "grid": (0.5, -3), "strideW": 1, "strideH": 1}
    for number in range(2):
        weight = random_weight(np.random.default_rng(number), view, "float", bits=3)
        builder.layer("CONV_2D", weight, view, output_shape=(1, 6, 6, 8), **options)
    return builder


def test_a_kernel_that_is_read_twice_is_decoded_once():
    builder = two_convolutions()
    first, second = builder.graph.operators
    second.inputs[1] = first.inputs[1]
    data = builder.finish(None)
    found = compress_for_micro(data)
    assert {row.operator: row.count for row in inspect(found).operators} == {"CONV_2D": 2, "CUSTOM TFLM_DECODE": 1}
    assert decodes(found) == ["CONV_2D"]
    np.testing.assert_array_equal(micro_outputs(found), micro_outputs(data))


def test_constants_that_are_read_otherwise_stay():
    """As what an operator multiplies with weights."""
    builder = two_convolutions()
    first, second = builder.graph.operators
    second.inputs[0] = first.inputs[1]
    assert decodes(compress_for_micro(builder.finish(None))) == ["CONV_2D"]


def test_packed_kernels_stay():
    with pytest.raises(ValueError, match="no INT8 kernel"):
        compress_for_micro(layer_of("CONV_2D", 4, INT4).finish())


def test_the_file_can_be_read(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(layer_of("CONV_2D", 3).finish())
    found = compress_for_micro(path)
    assert read(path) is not None and read(found) is None
    kernel = next(tensor for tensor in TFLiteModel(found).tensors if tensor.name == b"layer_0/kernel")
    assert kernel.type == schema.TensorType.INT8 and kernel.buffer == 0


@pytest.mark.parametrize("data", [network().finish(), layer_of("CONV_2D", 8).finish()], ids=["small", "8 bits"])
def test_nothing_to_gain(data):
    with pytest.raises(ValueError, match="no INT8 kernel of the file becomes smaller.*weight_bits below 8"):
        compress_for_micro(data)


def test_damaged_files_are_refused():
    data = layer_of("CONV_2D", 3).finish()
    with pytest.raises(FormatError):
        compress_for_micro(data[: len(data) // 2])
