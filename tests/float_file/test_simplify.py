import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from stock_runtimes import run

from tfptq.float_file.convert import convert_float
from tfptq.float_file.simplify import (
    fix_reshapes,
    keep_axes_of_dense_layers,
    read_through_reshapes,
    remove_idle_reshapes,
    replace_chosen_zeros,
    replace_floor_divisions,
    replace_squares,
    replace_sums,
    simplify,
)
from tfptq.tflite.model import TFLiteModel

VALUES = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)


def kinds(model):
    return [model.operator_name(operator) for operator in model.operators]


def outputs(model):
    return list(run(model.to_bytes(), {"x": VALUES}).values())


def flatten(sizes=(32,), begin=0):
    """What the converter makes of Flatten: RESHAPE to [SHAPE(x)[begin], *sizes]."""
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    slicing = {"begin": begin, "end": begin + 1, "stride": 1}
    constants = [graph.constant(name, np.asarray([value], np.int32)) for name, value in slicing.items()]
    shape = integer(graph, "SHAPE", [x], (4,), schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    sliced = integer(graph, "STRIDED_SLICE", [shape, *constants], (), schema.StridedSliceOptionsT(shrinkAxisMask=1))
    others = [graph.constant(f"size{at}", np.asarray(size, np.int32)) for at, size in enumerate(sizes)]
    packed = integer(
        graph, "PACK", [sliced, *others], (1 + len(sizes),), schema.PackOptionsT(valuesCount=1 + len(sizes), axis=0)
    )
    result = graph.add("RESHAPE", [x, packed], (1, *sizes), "flat", schema.ReshapeOptionsT())
    return graph.finish(result)


def integer(graph, kind, inputs, shape, options):
    index = graph.add(kind, inputs, shape, options=options)
    graph.model.tensors[index].type = schema.TensorType.INT32
    graph.model.tensors[index].shapeSignature = None
    return index


@pytest.mark.parametrize("sizes", [(32,), (16, 2), (2, 4, 4)])
def test_flatten_becomes_one_reshape(sizes):
    model = flatten(sizes)
    expected = outputs(model)
    assert fix_reshapes(model) == 1
    simplify(model)
    assert kinds(model) == ["RESHAPE"]
    np.testing.assert_array_equal(model.constant(model.operators[0].inputs[1]), [-1, *sizes])
    np.testing.assert_array_equal(outputs(model), expected)


def test_a_reshape_whose_size_comes_from_another_dimension():
    model = flatten((24,), begin=1)
    expected = outputs(model)
    assert fix_reshapes(model) == 1
    np.testing.assert_array_equal(outputs(model), expected)


def test_a_reshape_with_two_unknown_sizes_stays():
    model = flatten()
    model.tensors[model.subgraph.outputs[0]].shapeSignature = [-1, -1]
    assert fix_reshapes(model) == 0


def dense_on_three_axes(leading=(-1, 4), inputs=6):
    """What the converter makes of a dense layer on three axes, with constant shapes."""
    graph = FloatModel()
    x = graph.input("x", (1, 4, 6))
    kernel = graph.constant("kernel", np.random.default_rng(1).normal(size=(5, inputs)).astype(np.float32))
    flat_shape = graph.constant("flat_shape", np.asarray([-1, inputs], np.int32))
    flat = graph.add("RESHAPE", [x, flat_shape], (1, inputs), "flat")
    options = schema.FullyConnectedOptionsT()
    product = graph.add("FULLY_CONNECTED", [flat, kernel, -1], (1, 5), "product", options)
    shape = graph.constant("shape", np.asarray([*leading, 5], np.int32))
    result = graph.add("RESHAPE", [product, shape], (1, *leading[1:], 5), "result")
    return graph.finish(result)


def test_a_dense_layer_keeps_its_axes():
    model = dense_on_three_axes()
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    expected = list(run(model.to_bytes(), {"x": x}).values())
    assert read_through_reshapes(model) == 1
    assert kinds(model) == ["FULLY_CONNECTED", "RESHAPE"]
    assert keep_axes_of_dense_layers(model) == 1
    simplify(model)
    assert kinds(model) == ["FULLY_CONNECTED"]
    assert model.name(model.subgraph.outputs[0]) == "result"
    np.testing.assert_allclose(list(run(model.to_bytes(), {"x": x}).values()), expected, rtol=1e-6)


def test_a_dense_layer_on_other_axes_than_the_last_keeps_its_reshapes():
    model = dense_on_three_axes(leading=(-1, 2, 6), inputs=2)
    assert read_through_reshapes(model) == keep_axes_of_dense_layers(model) == 0
    model = dense_on_three_axes(leading=(-1, 2, 2))
    assert (read_through_reshapes(model), keep_axes_of_dense_layers(model)) == (1, 0)


def test_a_reshape_to_the_same_shape_goes_away():
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    shape = graph.constant("shape", np.asarray([-1, 4, 4, 2], np.int32))
    same = graph.add("RESHAPE", [x, shape], (1, 4, 4, 2), "same")
    root = graph.add("RELU", [same], (1, 4, 4, 2), "root")
    last = graph.add("RESHAPE", [root, shape], (1, 4, 4, 2), "last")
    model = graph.finish(last)
    expected = outputs(model)
    assert remove_idle_reshapes(model) == 1
    assert kinds(model) == ["RELU", "RESHAPE"]
    np.testing.assert_array_equal(outputs(model), expected)


@pytest.mark.parametrize("axes", [[1, 2], [3], [-1]])
def test_sums_become_means(axes):
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    shape = tuple(size for axis, size in enumerate((1, 4, 4, 2)) if axis not in {axis % 4 for axis in axes})
    options = schema.ReducerOptionsT(keepDims=False)
    total = graph.add("SUM", [x, graph.constant("axes", np.asarray(axes, np.int32))], shape, "total", options)
    model = graph.finish(total)
    expected = outputs(model)
    assert replace_sums(model) == 1
    assert kinds(model) == ["MEAN", "MUL"]
    assert model.name(model.subgraph.outputs[0]) == "total"
    np.testing.assert_allclose(outputs(model), expected, rtol=1e-5, atol=1e-6)


def test_a_sum_over_the_batch_stays():
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    axes = graph.constant("axes", np.asarray([0], np.int32))
    model = graph.finish(graph.add("SUM", [x, axes], (4, 4, 2), "total", schema.ReducerOptionsT(keepDims=False)))
    assert replace_sums(model) == 0


def test_a_sum_of_integers_stays():
    graph = FloatModel()
    x = graph.input("x", (1, 4))
    counts = integer(graph, "CAST", [x], (1, 4), schema.CastOptionsT())
    axes = graph.constant("axes", np.asarray([1], np.int32))
    model = graph.finish(integer(graph, "SUM", [counts, axes], (1,), schema.ReducerOptionsT(keepDims=False)))
    assert replace_sums(model) == 0


@pytest.mark.parametrize("activation", ["hard_sigmoid", "hard_swish"])
def test_a_transposed_convolution_gets_a_bias_for_each_channel(activation):
    """The converter fuses the 3 of these functions as a bias of one number, which no kernel takes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2), name="x")
    layer = keras.layers.Conv2DTranspose(5, 3, use_bias=False, activation=activation)
    network = keras.Model(inputs, layer(inputs))
    model = TFLiteModel(convert_float(network))
    simplify(model)
    (found,) = run(model.to_bytes(), {"x": VALUES}).values()
    np.testing.assert_allclose(found, network.predict(VALUES, verbose=0), rtol=1e-4, atol=1e-5)


def test_squares_become_products():
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    model = graph.finish(graph.add("SQUARE", [x], (1, 4, 4, 2), "square", schema.SquareOptionsT()))
    replace_squares(model)
    assert kinds(model) == ["MUL"]
    np.testing.assert_allclose(outputs(TFLiteModel(model.to_bytes()))[0], VALUES**2, rtol=1e-6)


def test_floors_of_quotients_survive_a_divisor_of_0():
    graph = FloatModel()
    x = graph.input("x", (1, 4, 4, 2))
    divisor = graph.add("RELU", [x], (1, 4, 4, 2), "divisor")
    model = graph.finish(graph.add("FLOOR_DIV", [x, divisor], (1, 4, 4, 2), "y", schema.FloorDivOptionsT()))
    replace_floor_divisions(model)
    assert kinds(model) == ["RELU", "DIV", "FLOOR"]
    found, positive = outputs(TFLiteModel(model.to_bytes()))[0], VALUES > 0
    assert (found[positive] == 1.0).all() and np.isinf(found[~positive]).all()


@pytest.mark.parametrize(
    ("channels", "of_input", "expected"),
    [
        (2, False, ["ABS", "SELECT_V2"]),
        (1, False, ["ABS", "TILE", "ZEROS_LIKE", "SELECT_V2"]),  # the zeros give the result its shape
        (2, True, ["TILE", "ZEROS_LIKE", "SELECT_V2"]),  # stays in float
    ],
)
def test_zeros_to_choose_become_one(channels, of_input, expected):
    graph = FloatModel()
    x, mask = graph.input("x", (1, 4, 4, 1)), graph.input("mask", (1, 4, 4, channels))
    graph.model.tensors[mask].type = schema.TensorType.BOOL
    values = x if of_input else graph.add("ABS", [x], (1, 4, 4, 1), "values", schema.AbsOptionsT())
    repeats = graph.constant("repeats", np.asarray([1, 1, 1, 2], np.int32))
    tiled = graph.add("TILE", [x, repeats], (1, 4, 4, 2), "tiled", schema.TileOptionsT())
    zeros = graph.add("ZEROS_LIKE", [tiled], (1, 4, 4, 2), "zeros", schema.ZerosLikeOptionsT())
    model = graph.finish(graph.add("SELECT_V2", [mask, values, zeros], (1, 4, 4, 2), "y"))
    feeds = {"x": VALUES[..., :1], "mask": np.broadcast_to(VALUES[..., :1] > 0, (len(VALUES), 4, 4, channels))}
    before = run(model.to_bytes(), feeds)["y"]
    replace_chosen_zeros(model)
    assert kinds(model) == expected
    np.testing.assert_array_equal(run(model.to_bytes(), feeds)["y"], before)


def test_simplify_does_all_of_it():
    model = flatten()
    simplify(model)
    assert kinds(model) == ["RESHAPE"]
    assert len(model.root.operatorCodes) == 1
