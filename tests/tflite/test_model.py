import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel, convolution
from stock_runtimes import run

from tfptq.tflite.model import TFLiteModel, quantization_parameters
from tfptq.tflite.serialize import BUFFER_ALIGNMENT


@pytest.fixture
def network():
    """relu(conv(x)) + 1, with a constant that two operators read."""
    graph, rng = FloatModel(), np.random.default_rng(0)
    x = graph.input("x", (1, 4, 4, 2))
    y = convolution(graph, x, rng.normal(size=(3, 1, 1, 2)), [0.5, -0.5, 0.0])
    y = graph.add("RELU", [y], (1, 4, 4, 3), "relu")
    one = graph.constant("one", np.float32(1.0))
    y = graph.add("ADD", [y, one], (1, 4, 4, 3), "first", schema.AddOptionsT())
    y = graph.add("MUL", [y, one], (1, 4, 4, 3), "second", schema.MulOptionsT())
    return graph.finish(y)


def named(model, name):
    return next(index for index in range(len(model.tensors)) if model.name(index) == name)


def test_reading(network):
    assert [network.operator_name(operator) for operator in network.operators] == ["CONV_2D", "RELU", "ADD", "MUL"]
    one, conv, x = (named(network, name) for name in ("one", "conv", "x"))
    assert network.is_constant(one)
    assert not network.is_constant(x)
    assert not network.is_constant(-1)
    assert network.constant(one) == 1.0
    assert network.shape(one) == ()
    assert network.producers()[conv] == 0
    assert network.consumers()[one] == [2, 3]
    assert [network.name(index) for index in network.activations()] == ["x", "conv", "relu", "first", "second"]


def test_bytes_round_trip_and_run(network):
    data = network.to_bytes()
    assert data[4:8] == b"TFL3"
    assert TFLiteModel(data).to_bytes() == data
    values = np.random.default_rng(1).normal(size=(5, 4, 4, 2)).astype(np.float32)
    (found,) = run(data, {"x": values}).values()
    kernel = network.constant(named(network, "conv/kernel"))[:, 0, 0]
    np.testing.assert_allclose(found, np.maximum(values @ kernel.T + [0.5, -0.5, 0.0], 0) + 1, rtol=1e-5, atol=1e-6)


def test_constants_are_aligned(network):
    data = network.to_bytes()
    model = schema.Model.GetRootAs(data, 0)
    starts = [
        model.Buffers(at).DataAsNumpy().__array_interface__["data"][0]
        - np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        for at in range(model.BuffersLength())
        if not model.Buffers(at).DataIsNone()
    ]
    assert starts
    assert all(start % BUFFER_ALIGNMENT == 0 for start in starts)


def test_equal_vectors_are_written_once(network):
    before = len(network.to_bytes())
    zero_points = np.zeros(1000, np.int64)
    for index in (named(network, "one"), named(network, "conv")):
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = np.ones(1, np.float32), zero_points.copy()
        network.tensors[index].quantization = quantization
    data = network.to_bytes()
    assert 8000 < len(data) - before < 8500
    again = TFLiteModel(data)
    for name in ("one", "conv"):
        np.testing.assert_array_equal(again.tensors[named(again, name)].quantization.zeroPoint, zero_points)


def test_names_stay_unique(network):
    assert network.unique_name("fresh") == "fresh"
    assert network.unique_name("fresh") == "fresh_1"
    assert network.name(network.add_constant("one", np.float32(2))) == "one_1"


def test_names_of_fused_operators_are_shortened():
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    name = "net/act/Relu;net/conv/BiasAdd;net/conv/convolution"
    bias = graph.constant(f"{name}1", np.zeros(3, np.float32))
    y = convolution(graph, x, np.ones((3, 1, 1, 2)), name="net/first")
    y = graph.add("ADD", [y, bias], (1, 4, 4, 3), name, schema.AddOptionsT())
    network = graph.finish(y)
    network.shorten_names()
    names = [network.name(index) for index in range(len(network.tensors))]
    assert {"x", "net/act/Relu", "net/conv/bias"} <= set(names)
    assert not [name for name in names if ";" in name]
    assert network.unique_name("net/conv/bias") == "net/conv/bias_1"


def test_names_that_would_collide_stay_long(network):
    network.tensors[named(network, "one")].name = "conv;a"
    network.shorten_names()
    assert "conv;a" in network.places() and "conv" in network.places()


def test_operator_codes_are_shared_and_old_readers_know_them(network):
    code = network.operator_code("RELU", 2)
    assert network.operator_code("RELU", 2) == code
    assert network.operator_code("RELU", 1) != code
    assert network.root.operatorCodes[code].deprecatedBuiltinCode == schema.BuiltinOperator.RELU
    high = network.root.operatorCodes[network.operator_code("STABLEHLO_COMPOSITE", 1)]
    assert high.deprecatedBuiltinCode == 127
    assert high.builtinCode == schema.BuiltinOperator.STABLEHLO_COMPOSITE


def test_versions_only_rise(network):
    relu = network.operators[1]
    network.raise_version(relu, 2)
    assert network.root.operatorCodes[relu.opcodeIndex].version == 2
    network.raise_version(relu, 1)
    assert network.root.operatorCodes[relu.opcodeIndex].version == 2


def test_unused_parts_are_removed(network):
    before = network.to_bytes()
    network.add_constant("unused", np.zeros(1000, np.float32))
    network.operator_code("TANH", 1)
    network.remove_unused()
    names = [network.name(index) for index in range(len(network.tensors))]
    assert "unused" not in names
    assert len(network.root.operatorCodes) == 4
    values = np.ones((1, 4, 4, 2), np.float32)
    after = network.to_bytes()
    assert len(after) < len(before) + 500
    assert np.array_equal(run(after, {"x": values})["second"], run(before, {"x": values})["second"])


def test_removal_follows_signatures_and_optional_inputs():
    graph = FloatModel()
    graph.constant("unused", np.zeros(3, np.float32))
    x = graph.input("x", (1, 4))
    kernel = graph.constant("kernel", np.eye(4, dtype=np.float32))
    y = graph.add("FULLY_CONNECTED", [x, kernel, -1], (1, 4), "y", schema.FullyConnectedOptionsT())
    model = graph.finish(y)
    model.remove_unused()
    assert model.operators[0].inputs[2] == -1
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(run(model.to_bytes(), {"x": values})["y"], values)


def test_a_copy_shares_nothing_that_is_edited():
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    conv = convolution(graph, x, np.ones((3, 1, 1, 2)), [0.5, -0.5, 0.0])
    original = graph.finish(conv)
    original.tensors[conv].quantization = quantization_parameters([0.5], [3])
    before, twin = original.to_bytes(), original.copy()
    assert twin.to_bytes() == before
    twin.operators[0].builtinOptions.strideW = 9
    twin.operators[0].inputs[0] = 7
    twin.tensors[conv].quantization.scale[0] = 0.25
    twin.tensors[conv].shape[0] = 5
    twin.root.operatorCodes[0].version = 99
    for buffer in twin.root.buffers:
        buffer.data = None
    assert original.to_bytes() == before


def test_a_copy_shares_the_bytes_of_constants(network):
    pairs = list(zip(network.root.buffers, network.copy().root.buffers, strict=True))
    assert all(first.data is second.data for first, second in pairs)
