"""Measured times of operators without weights."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel

from tfptq.tflite.costs import load_costs, shipped_costs
from tfptq.tflite.layouts import LayoutRequest
from tfptq.tflite.operator_costs import FLOAT, INT8, OperatorCosts, load_operator_costs, values_of


def test_time_grows_with_the_largest_tensor():
    file = FloatModel()
    x = file.input("x", (1, 6, 4))
    file.add("MEAN", [x, file.constant("axes", np.int32([1]))], (1, 4))
    model = file.finish(file.add("ADD", [x, x], (1, 6, 4)))
    costs = OperatorCosts({"MEAN": {INT8: 2.0, FLOAT: 5.0}, "DEQUANTIZE": {FLOAT: 3.0}})
    mean, add = model.operators
    assert costs.microseconds(model, mean, INT8) == pytest.approx(24 * 2e-3)
    assert costs.microseconds(model, mean, FLOAT) == pytest.approx(24 * 5e-3)
    assert costs.microseconds(model, add, FLOAT) == 0.0, "not measured"
    assert costs.conversion(model, "DEQUANTIZE", x) == pytest.approx(24 * 3e-3)
    assert costs.knows("MEAN") and not costs.knows("ADD") and not costs.knows("DEQUANTIZE")


@pytest.mark.parametrize("adjoint", [False, True])
def test_products_of_matrices_count_multiplications(adjoint):
    file = FloatModel()
    left = file.input("a", (1, 5, 3) if adjoint else (1, 3, 5))
    right = file.input("b", (1, 5, 7))
    options = schema.BatchMatMulOptionsT(adjX=adjoint, adjY=False)
    model = file.finish(file.add("BATCH_MATMUL", [left, right], (1, 3, 7), options=options))
    assert values_of(model, model.operators[0]) == 3 * 5 * 7


def test_a_recurrent_layer_counts_as_dense_layers_of_its_steps():
    times = [
        load_costs("cpu").microseconds(LayoutRequest(kind, (64, 32, 1), (1, 32), "float", 8, input_sizes=(-1, 12, 32)))
        for kind in ("FULLY_CONNECTED", "UNIDIRECTIONAL_SEQUENCE_LSTM")
    ]
    assert times[0] == times[1] > 0.0


def test_shipped_times_are_of_real_operators():
    found = {name: load_operator_costs(name) for name in shipped_costs()}
    costs = found["cpu"]
    assert found["web"] is None
    for kind in ("ADD", "MUL", "MEAN", "SOFTMAX", "GELU", "BATCH_MATMUL", "TRANSPOSE", "RESHAPE"):
        assert costs.knows(kind)
    assert all(0.0 < time < 100.0 for times in costs.nanoseconds.values() for time in times.values())
    assert costs.nanoseconds["QUANTIZE"].keys() == costs.nanoseconds["DEQUANTIZE"].keys() == {FLOAT}
