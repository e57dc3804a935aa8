import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from hypothesis import given
from hypothesis import strategies as st
from stock_runtimes import run

from tfptq.core.affine import activation_grid, symmetric_range
from tfptq.lowering.emit import emit
from tfptq.lowering.grids import assign_grids
from tfptq.lowering.plan import Ends, plan_integers
from tfptq.ops.table import OPERATORS

SHAPE = (1, 4)


def grids(model, ranges, bits=8):
    """Grids by tensor name."""
    by_index = {index: ranges[model.name(index)] for index in model.activations()}
    return {model.name(index): grid for index, grid in assign_grids(model, model.operators, by_index, bits).items()}


def concatenation(*names):
    graph = FloatModel()
    inputs = [graph.input(name, SHAPE) for name in names]
    return (
        graph,
        inputs,
        graph.add("CONCATENATION", inputs, (1, 4 * len(names)), "joined", schema.ConcatenationOptionsT()),
    )


def test_operators_with_grids_of_their_own():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    model = graph.finish(graph.add("RELU", [x], SHAPE, "y"))
    found = grids(model, {"x": (-1.0, 3.0), "y": (0.0, 3.0)})
    assert found == {"x": activation_grid(-1.0, 3.0), "y": activation_grid(0.0, 3.0)}


def test_a_chain_has_one_grid_over_all_its_ranges():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("RESHAPE", [x, graph.constant("shape", np.asarray([-1, 2, 2], np.int32))], (1, 2, 2), "y")
    z = graph.add("TRANSPOSE", [y, graph.constant("order", np.asarray([0, 2, 1], np.int32))], (1, 2, 2), "z")
    found = grids(graph.finish(z), {"x": (-1.0, 1.0), "y": (-2.0, 1.0), "z": (-1.0, 5.0)})
    assert set(found.values()) == {activation_grid(-2.0, 5.0)}
    assert set(found) == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("name", "expected"), [("SOFTMAX", (1 / 256, -128)), ("TANH", (1 / 128, 0)), ("LOGISTIC", (1 / 256, -128))]
)
def test_fixed_grids_pass_through_chains(name, expected):
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add(name, [x], SHAPE, "y", schema.SoftmaxOptionsT(beta=1.0) if name == "SOFTMAX" else None)
    z = graph.add("RESHAPE", [y, graph.constant("shape", np.asarray([-1, 2, 2], np.int32))], (1, 2, 2), "z")
    found = grids(graph.finish(z), dict.fromkeys("xyz", (-0.5, 0.5)))
    for tensor in "yz":
        assert (found[tensor].scale, found[tensor].zero_point) == expected
    assert grids(graph.finish(z), dict.fromkeys("xyz", (-0.5, 0.5)), bits=16)["z"] == OPERATORS[name].fixed_grids[16]


def test_alike_inputs_of_a_concatenation_share_its_grid():
    graph, _, joined = concatenation("a", "b")
    found = grids(graph.finish(joined), {"a": (-1.0, 1.0), "b": (-1.5, 1.0), "joined": (-1.5, 1.0)})
    assert found["a"] == found["b"] == found["joined"] == activation_grid(-1.5, 1.0)


def test_a_narrow_input_with_other_readers_keeps_its_grid():
    graph, (a, _), joined = concatenation("a", "b")
    other = graph.add("RELU", [a], SHAPE, "other")
    found = grids(
        graph.finish(joined, other), {"a": (-1.0, 1.0), "b": (-9.0, 9.0), "joined": (-9.0, 9.0), "other": (0.0, 1.0)}
    )
    assert found["a"] == activation_grid(-1.0, 1.0)
    assert found["b"] == found["joined"] == activation_grid(-9.0, 9.0)


def test_a_tensor_that_shares_its_grid_with_one_that_others_read_keeps_it():
    ranges = {"a": (-1.0, 1.0), "moved": (-1.0, 1.0), "b": (-9.0, 9.0), "joined": (-9.0, 9.0), "other": (0.0, 1.0)}
    for read in (False, True):
        graph = FloatModel()
        a, b = graph.input("a", SHAPE), graph.input("b", SHAPE)
        moved = graph.add("RESHAPE", [a, graph.constant("shape", np.asarray([-1, 4], np.int32))], SHAPE, "moved")
        joined = graph.add("CONCATENATION", [moved, b], (1, 8), "joined", schema.ConcatenationOptionsT())
        results = [joined, graph.add("RELU", [a], SHAPE, "other")] if read else [joined]
        found = grids(graph.finish(*results), ranges)
        assert found["joined"] == activation_grid(-9.0, 9.0)
        assert found["a"] == found["moved"] == (activation_grid(-1.0, 1.0) if read else found["joined"])


def test_a_concatenation_of_concatenations_has_one_grid():
    graph = FloatModel()
    a, b, c = (graph.input(name, SHAPE) for name in "abc")
    first = graph.add("CONCATENATION", [a, b], (1, 8), "first", schema.ConcatenationOptionsT())
    second = graph.add("CONCATENATION", [first, c], (1, 12), "second", schema.ConcatenationOptionsT())
    ranges = {"a": (-1.0, 1.0), "b": (-2.0, 2.0), "c": (-9.0, 9.0), "first": (-2.0, 2.0), "second": (-9.0, 9.0)}
    assert set(grids(graph.finish(second), ranges).values()) == {activation_grid(-9.0, 9.0)}


def test_inputs_with_fixed_grids_are_requantized_unless_all_are_the_same():
    for second, shared in (("LOGISTIC", True), ("TANH", False)):
        graph = FloatModel()
        x = graph.input("x", SHAPE)
        a, b = graph.add("LOGISTIC", [x], SHAPE, "a"), graph.add(second, [x], SHAPE, "b")
        joined = graph.add("CONCATENATION", [a, b], (1, 8), "joined", schema.ConcatenationOptionsT())
        found = grids(graph.finish(joined), dict.fromkeys(("x", "a", "b", "joined"), (-0.9, 0.9)))
        assert (found["joined"] == found["a"]) == shared


def test_second_factors_of_products_have_the_zero_point_0():
    graph = FloatModel()
    a, b = graph.input("a", (1, 2, 3)), graph.input("b", (1, 3, 2))
    product = graph.add("BATCH_MATMUL", [a, b], (1, 2, 2), "product", schema.BatchMatMulOptionsT())
    found = grids(graph.finish(product), {"a": (0.0, 6.0), "b": (0.0, 6.0), "product": (0.0, 9.0)})
    assert found["a"].zero_point == -128
    assert found["b"].zero_point == 0
    assert found["b"].real_range[1] >= 6.0 - 1e-6


@given(st.floats(-1e6, 0), st.floats(0, 1e6))
def test_symmetric_ranges_have_the_zero_point_0(low, high):
    if high - low > 1e-6:
        grid = activation_grid(*symmetric_range(low, high))
        assert grid.zero_point == 0
        assert grid.real_range[0] <= low * (1 - 1e-6)
        assert grid.real_range[1] >= high * (1 - 1e-6)


def test_inputs_and_outputs_have_grids_although_nothing_is_quantized():
    graph = FloatModel()
    x = graph.input("x", SHAPE)
    y = graph.add("RELU", [x], SHAPE, "y")
    model = graph.finish(graph.add("EXP", [y], SHAPE, "z"))
    found = assign_grids(model, [], {index: (-1.0, 1.0) for index in model.activations()}, 8)
    assert {model.name(index) for index in found} == {"x", "z"}


@given(
    st.floats(-5.0, 0.0),
    st.floats(0.1, 5.0),
    st.floats(0.01, 100.0),
    st.booleans(),
    st.sampled_from(["AUTO", "BUILTIN", "REF"]),
)
def test_a_product_with_one_number_keeps_its_codes(low, high, factor, negative, resolver):
    graph = FloatModel()
    x = graph.input("x", (1, 256))
    constant = graph.constant("factor", np.float32(-factor if negative else factor))
    y = graph.add("MUL", [x, constant], (1, 256), "y", schema.MulOptionsT())
    y = graph.add("RESHAPE", [y, graph.constant("shape", np.asarray([1, 16, 16], np.int32))], (1, 16, 16), "z")
    ends = sorted([low * factor, high * factor] if not negative else [-low * factor, -high * factor])
    model = graph.finish(y)
    ranges = {index: (low, high) if index == x else tuple(ends) for index in model.activations()}
    plan = plan_integers(model, ranges, ends=Ends(False, False))
    data = emit(model.to_bytes(), plan, [], input_type="int8", output_type="int8").model.to_bytes()
    codes = np.arange(-128, 128).reshape(1, 256)
    grid = plan.grids[x]
    found = run(data, {"x": (codes - grid.zero_point) * grid.scale}, resolver)["z"].reshape(1, 256)
    np.testing.assert_array_equal(found, -1 - codes if negative else codes)
