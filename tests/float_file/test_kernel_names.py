"""Names of kernels from what the converter left of the layers' paths."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel

from tfptq.float_file.kernel_names import names_of_kernels


def named(constants, results=(), layers=()):
    """Names of dense kernels with these names of constants and, where given, of results."""
    graph = FloatModel()
    x = graph.input("x", (1, 4))
    tensors = {}
    for at, name in enumerate(constants):
        kernel = graph.constant(name, np.eye(4, dtype=np.float32) + at)
        result = results[at] if results else f"result_{at}"
        x = graph.add("FULLY_CONNECTED", [x, kernel, -1], (1, 4), result, schema.FullyConnectedOptionsT())
        tensors[kernel] = at
    return list(names_of_kernels(graph.finish(x), tensors, layers).values())


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        (["model/dense_1/MatMul", "model/dense_2/MatMul"], ["dense_1", "dense_2"]),
        (["net_1/block_1/dense_3_1/Tensordot/MatMul", "net_1/head_1/MatMul"], ["block/dense_3", "head"]),
        (["net_1/conv_1/MatMul", "net_1/conv_2/MatMul"], ["conv_1", "conv_2"]),  # without numbers they would be one
        (["a/bn/mul;a/stem/Conv2D", "a/head/MatMul;a/head/BiasAdd"], ["stem", "head"]),
        (["m/x/einsum/Einsum", "m/x/MatMul", "m/y/MatMul"], ["x", "x_1", "y"]),
        (["arith.constant3", "tfl.pseudo_const"], ["fully_connected", "fully_connected_1"]),
        (["first", "model/second/MatMul"], ["first", "second"]),
        (["one/MatMul", "two/MatMul"], ["one", "two"]),  # no scope of a model around them
    ],
)
def test_names(constants, expected):
    assert named(constants) == expected


def test_results_name_kernels_whose_constants_have_no_names():
    results = ["StatefulPartitionedCall/net/a/MatMul;net/a/Relu", "StatefulPartitionedCall:0"]
    assert named(["arith.constant", "arith.constant1"], results) == ["a", "fully_connected"]


def test_paths_start_with_a_known_layer():
    assert named(["outer/inner/own/dense/MatMul", "outer/inner/own/out/MatMul"], layers=["own"]) == [
        "own/dense",
        "own/out",
    ]
