import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from stock_runtimes import RESOLVERS, run

from tfptq.float_file.copies import remove_whole_slices, replace_tiles

VALUES = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


def kinds(model):
    return [model.operator_name(operator) for operator in model.operators]


def tiled(multiples):
    graph = FloatModel()
    x = graph.input("x", (1, 3, 4))
    constant = graph.constant("multiples", np.asarray(multiples, np.int32))
    shape = [1, 3 * multiples[1], 4 * multiples[2]]
    return graph.finish(graph.add("TILE", [x, constant], shape, "y", schema.TileOptionsT()))


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(
    ("multiples", "joined"),
    [
        ((1, 2, 1), [2]),
        ((1, 1, 5), [5]),
        ((1, 6, 1), [2, 5]),
        ((1, 8, 1), [2, 4]),
        ((1, 100, 1), [2, 5, 5, 4]),
        ((1, 3, 7), [3, 3, 5]),
    ],
)
def test_tile_becomes_concatenation(multiples, joined, resolver):
    model = tiled(multiples)
    assert replace_tiles(model) == 1
    assert set(kinds(model)) == {"CONCATENATION"}
    assert [len(operator.inputs) for operator in model.operators] == joined
    assert model.operators[-1].outputs == model.subgraph.outputs
    (found,) = run(model.to_bytes(), {"x": VALUES}, resolver).values()
    np.testing.assert_array_equal(found, np.tile(VALUES, multiples))


def test_few_operators_repeat_often():
    model = tiled((1, 1000, 1))
    replace_tiles(model)
    assert len(model.operators) <= 12


@pytest.mark.parametrize("multiples", [(1, 1, 1), (2, 1, 1)])
def test_tiles_of_nothing_stay_and_those_of_an_open_batch_do_not(multiples):
    model = tiled(multiples)
    assert replace_tiles(model) == (max(multiples) > 1)
    (found,) = run(model.to_bytes(), {"x": VALUES}).values()
    np.testing.assert_array_equal(found, np.tile(VALUES, multiples))


def sliced(begin, end, strides, shape, **masks):
    graph = FloatModel()
    x = graph.input("x", (1, 3, 4))
    constants = [graph.constant(f"part{at}", np.asarray(it, np.int32)) for at, it in enumerate((begin, end, strides))]
    masks = {"beginMask": 0, "endMask": 0, "newAxisMask": 0, "ellipsisMask": 0, "shrinkAxisMask": 0} | masks
    taken = graph.add("STRIDED_SLICE", [x, *constants], shape, options=schema.StridedSliceOptionsT(**masks))
    return graph.finish(graph.add("RELU", [taken], shape, "y"))


@pytest.mark.parametrize(
    ("model", "whole"),
    [
        (lambda: sliced([0, 0, 0], [0, 0, 0], [1, 1, 1], (1, 3, 4), beginMask=7, endMask=7), True),
        (lambda: sliced([0, 0, 0], [0, 3, 4], [1, 1, 1], (1, 3, 4), beginMask=1, endMask=1), True),
        (lambda: sliced([0, 1, 0], [0, 3, 4], [1, 1, 1], (1, 2, 4), beginMask=1, endMask=1), False),
        (lambda: sliced([0, 2, 0], [0, -4, 4], [1, -1, 1], (1, 3, 4), beginMask=1, endMask=1), False),
        (lambda: sliced([0, 0, 0], [1, 3, 4], [1, 1, 1], (1, 3, 4)), False),  # one of an open batch
    ],
)
def test_slices_that_take_all_go_away(model, whole):
    model = model()
    (expected,) = run(model.to_bytes(), {"x": VALUES}).values()
    assert remove_whole_slices(model) == whole
    assert (model.operators[-1].inputs == model.subgraph.inputs) == whole
    (found,) = run(model.to_bytes(), {"x": VALUES}).values()
    np.testing.assert_array_equal(found, expected)
