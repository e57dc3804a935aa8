"""The emitter on hand-made float models: lowering, requantization, inputs and outputs, operators kept in float."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel, convolution, kernels_of
from stock_runtimes import RESOLVERS, details, run, run_decoded, signal_to_noise

from tfptq.config import PerChannel, QuantizationConfig
from tfptq.core.blocks import QuantizedWeight, float_scales, quantize_nearest
from tfptq.core.weight_scales import max_abs_scales
from tfptq.float_file.kernel import KernelId
from tfptq.lowering.choose_layout import LayoutPlan
from tfptq.lowering.emit import emit
from tfptq.lowering.grids import ranges_of_tables
from tfptq.lowering.plan import Ends, plan_integers
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel
from tfptq.tflite.layouts import INT8
from tfptq.tflite.runtime import TensorRunner

RNG = np.random.default_rng(0)
SHAPE = (1, 4, 4, 2)
VALUES = RNG.normal(size=(8, 4, 4, 2)).astype(np.float32)
RELU = schema.ActivationFunctionType.RELU


def measured(model, values=None):
    """Ranges of all activations over ``VALUES``."""
    ranges = {}
    inputs = {"x": VALUES} if values is None else values
    runner = TensorRunner(model.to_bytes(), model.activations())
    runner.run(inputs, lambda index, found: ranges.__setitem__(index, (float(found.min()), float(found.max()))))
    return ranges


def with_codes(kernel, weight):
    """A kernel with codes for the layout INT8."""
    shift = np.zeros(len(weight.codes), np.float32)
    return QuantizedKernel.of(kernel, KernelPlan(QuantizationConfig(PerChannel()), LayoutPlan((INT8,))), weight, shift)


def quantized(model, bits=8, skipped=None, values=None, **types):
    """(plan, emitted model) with weights per channel."""
    ends = Ends(*(types.get(end, "float32") == "float32" for end in ("input_type", "output_type")))
    ranges = {**measured(model, values), **ranges_of_tables(model)}
    plan = plan_integers(model, ranges, bits, skipped, ends=ends)
    kernels = []
    for kernel in kernels_of(model):
        if kernel.uses[0].operator in plan.operators:
            scales = max_abs_scales(kernel.values, (1, kernel.shape[1]), 8)
            kernels.append(with_codes(kernel, quantize_nearest(kernel.values, scales, 8)))
    return plan, emit(model.to_bytes(), plan, kernels, **types).model


def kinds(model):
    return [model.operator_name(operator) for operator in model.operators]


def small_network(outputs=("y",)):
    """conv + relu -> exp -> conv; EXP has no integer form."""
    graph, rng = FloatModel(), np.random.default_rng(0)  # the same weights, whichever tests ran before
    x = graph.input("x", SHAPE)
    x = convolution(graph, x, rng.normal(size=(3, 2, 2, 2)), [0.1, -0.1, 0.2], "first", RELU)
    x = graph.add("EXP", [x], (1, 3, 3, 3), "exp")
    y = convolution(graph, x, rng.normal(size=(2, 1, 1, 3)) / 20, None, "y")
    return graph.finish(y)


def test_float_operators_stand_between_dequantize_and_quantize():
    model = small_network()
    plan, emitted = quantized(model)
    assert plan.float_operators == (("EXP", "exp", "EXP has no integer rule"),)
    assert kinds(emitted) == ["QUANTIZE", "CONV_2D", "DEQUANTIZE", "EXP", "QUANTIZE", "CONV_2D", "DEQUANTIZE"]
    expected = run(model.to_bytes(), {"x": VALUES})["y"]
    for resolver in RESOLVERS:
        assert signal_to_noise(expected, run(emitted.to_bytes(), {"x": VALUES}, resolver)["y"]) > 30


def test_names_are_kept_and_unique():
    model = small_network()
    for types in ({}, {"input_type": "uint8", "output_type": "uint8"}, {"input_type": "int8", "output_type": "int8"}):
        _, emitted = quantized(model, **types)
        names = [emitted.name(index) for index in range(len(emitted.tensors))]
        assert len(set(names)) == len(names)
        assert {"x", "y", "first", "first/kernel", "first/bias", "y/kernel", "exp"} <= set(names)
        assert emitted.name(emitted.subgraph.inputs[0]) == "x"
        assert emitted.name(emitted.subgraph.outputs[0]) == "y"


def test_an_output_that_is_read_again():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("LOGISTIC", [x], SHAPE, "y")
    z = graph.add("MUL", [x, y], SHAPE, "z", schema.MulOptionsT())
    model = graph.finish(y, z)
    expected = run(model.to_bytes(), {"x": VALUES})
    for kind in ("float32", "int8", "uint8"):
        _, emitted = quantized(model, output_type=kind)
        found = run_decoded(emitted.to_bytes(), {"x": VALUES})
        assert all(signal_to_noise(expected[name], found[name]) > 30 for name in "yz")
        assert {detail["dtype"] for detail in details(emitted.to_bytes())[1].values()} == {np.dtype(kind).type}


def test_an_input_that_is_an_output():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("RELU", [x], SHAPE, "y")
    _, emitted = quantized(graph.finish(x, y))
    found = run(emitted.to_bytes(), {"x": VALUES})
    np.testing.assert_array_equal(found["x"], VALUES)
    assert signal_to_noise(np.maximum(VALUES, 0), found["y"]) > 30


def test_inputs_of_integers_pass_untouched():
    graph = FloatModel()
    ids = graph.input("ids", (1, 3))
    graph.model.tensors[ids].type = schema.TensorType.INT32
    table = graph.constant("table", RNG.normal(size=(5, 4)).astype(np.float32))
    y = graph.add("GATHER", [table, ids], (1, 3, 4), "y", schema.GatherOptionsT())
    model = graph.finish(graph.add("RELU", [y], (1, 3, 4), "z"))
    ids = {"ids": np.asarray([[0, 4, 2]], np.int32)}
    plan, emitted = quantized(model, values=ids, input_type="int8")
    assert details(emitted.to_bytes())[0]["ids"]["dtype"] == np.int32
    assert not plan.float_operators and kinds(emitted) == ["GATHER", "RELU", "DEQUANTIZE"]
    np.testing.assert_allclose(run(emitted.to_bytes(), ids)["z"], run(model.to_bytes(), ids)["z"], atol=0.02)


def test_inputs_of_a_concatenation_are_requantized_once():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    wide = graph.add("MUL", [x, graph.constant("ten", np.float32(10.0))], SHAPE, "wide", schema.MulOptionsT())
    options = schema.ConcatenationOptionsT(axis=3)
    joined = [graph.add("CONCATENATION", [x, wide], (1, 4, 4, 4), name, options) for name in ("first", "second")]
    model = graph.finish(*joined)
    _, emitted = quantized(model, output_type="int8")
    assert kinds(emitted).count("QUANTIZE") == 2  # the input, and the input on the grid of the concatenations
    expected, found = (run_decoded(data, {"x": VALUES}) for data in (model.to_bytes(), emitted.to_bytes()))
    assert all(signal_to_noise(expected[name], found[name]) > 30 for name in expected)


def test_squeeze():
    """The converter never writes SQUEEZE, other makers of float models do."""
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("EXPAND_DIMS", [x, graph.constant("axis", np.asarray(1, np.int32))], (1, 1, 4, 4, 2), "y")
    z = graph.add("SQUEEZE", [y], SHAPE, "z", schema.SqueezeOptionsT(squeezeDims=np.asarray([1], np.int32)))
    plan, emitted = quantized(graph.finish(z))
    assert len(plan.operators) == 2
    assert len(set(plan.grids.values())) == 1
    assert signal_to_noise(VALUES, run(emitted.to_bytes(), {"x": VALUES}, "REF")["z"]) > 30


def test_shapes_are_read_from_whichever_form_there_is():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("RELU", [x], SHAPE, "y")
    shape = graph.add("SHAPE", [y], (4,), "shape", schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    graph.model.tensors[shape].type = schema.TensorType.INT32
    graph.model.tensors[shape].shapeSignature = None
    z = graph.add("RESHAPE", [y, shape], SHAPE, "z")
    plan, emitted = quantized(graph.finish(z))
    assert not plan.float_operators
    assert kinds(emitted) == ["QUANTIZE", "RELU", "SHAPE", "RESHAPE", "DEQUANTIZE"]
    assert signal_to_noise(np.maximum(VALUES, 0), run(emitted.to_bytes(), {"x": VALUES})["z"]) > 30


def test_skipped_operators_stay_float_with_the_given_reason():
    model = small_network()
    plan, emitted = quantized(model, skipped={0: "not now"})
    assert plan.float_operators[0] == ("CONV_2D", "first", "not now")
    assert emitted.is_float(emitted.operators[0].inputs[1])


@pytest.mark.parametrize("kind", ["EXP", "LOG"])
def test_light_operators_after_float_ones_stay_float(kind):
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("SQUARE", [x], SHAPE, "square")
    y = graph.add("ADD", [y, graph.constant("one", np.float32(1.0))], SHAPE, "add", schema.AddOptionsT())
    model = graph.finish(graph.add(kind, [y], SHAPE, "z"))
    plan, emitted = quantized(model)
    assert [reason for _, _, reason in plan.float_operators][1] == "ADD continues a computation in float"
    np.testing.assert_allclose(
        run(emitted.to_bytes(), {"x": VALUES})["z"], run(model.to_bytes(), {"x": VALUES})["z"], rtol=1e-5
    )


def test_versions_and_16_bit_activations():
    model = small_network()
    for bits in (8, 16):
        plan, emitted = quantized(model, bits)
        for operator in emitted.operators:
            spec = emitted.spec(operator)
            if spec.output_grid is not None and not emitted.is_float(operator.inputs[0]):
                version = emitted.root.operatorCodes[operator.opcodeIndex].version
                assert version >= spec.version(bits)
        expected = run(model.to_bytes(), {"x": VALUES})["y"]
        assert signal_to_noise(expected, run(emitted.to_bytes(), {"x": VALUES}, "REF")["y"]) > 30
        assert plan.bits == bits
    assert emitted.constant(emitted.operators[1].inputs[2]).dtype == np.int64


def test_operators_without_16_bit_kernels_are_named():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    model = graph.finish(graph.add("ELU", [x], SHAPE, "y"))
    plan, _ = quantized(model, 16)
    assert plan.float_operators == (("ELU", "y", "ELU has no kernel for 16-bit activations"),)


def test_a_bias_beyond_its_share_of_int32_is_refused():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    model = graph.finish(convolution(graph, x, RNG.normal(size=(2, 1, 1, 2)), [1.0, -1e9]))
    with pytest.raises(ValueError, match="bias -1e.09 of output channel 1 does not fit half of int32"):
        quantized(model)


def test_a_weight_without_an_int8_form_is_refused():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    model = graph.finish(convolution(graph, x, RNG.normal(size=(2, 1, 1, 2))))
    (kernel,) = kernels_of(model)
    scales = float_scales(np.asarray([[0.1, 0.2]]), (2, 1))
    weight = QuantizedWeight(np.ones((2, 2, 1), np.int8), scales, 8)
    plan = plan_integers(model, measured(model))
    with pytest.raises(ValueError, match="conv/kernel.*layout"):
        emit(model.to_bytes(), plan, [with_codes(kernel, weight)])


def test_fused_factors_go_into_the_scales():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    values = RNG.normal(size=(2, 1, 1, 2)).astype(np.float32)
    factors = np.asarray([3.0, -0.5], np.float32)
    model = graph.finish(convolution(graph, x, values * factors[:, None, None, None]))
    view = values.reshape(2, 2, 1)
    (kernel,) = kernels_of(model, {KernelId("layer", "kernel"): view})
    weight = quantize_nearest(view, max_abs_scales(view, (2, 2), 8), 8)
    plan = plan_integers(model, measured(model))
    emitted = emit(model.to_bytes(), plan, [with_codes(kernel, weight)]).model
    expected, found = (run(data, {"x": VALUES})["conv"] for data in (model.to_bytes(), emitted.to_bytes()))
    assert signal_to_noise(expected, found) > 30
