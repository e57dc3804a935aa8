"""Comparisons on integers tell what they tell of the real values that codes stand for."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops
from stock_runtimes import RESOLVERS, run, signal_to_noise

import tfptq
from tfptq.core.affine import activation_grid
from tfptq.lowering.comparisons import can_compare, compared_constant
from tfptq.tflite.model import TFLiteModel

COMPARISONS = {
    "GREATER": np.greater,
    "GREATER_EQUAL": np.greater_equal,
    "LESS": np.less,
    "LESS_EQUAL": np.less_equal,
    "EQUAL": np.equal,
    "NOT_EQUAL": np.not_equal,
}
ORDERINGS = list(COMPARISONS)[:4]


def comparison(name, constant, first):
    """(model, position of the constant): ``x`` and a constant, in one order or the other."""
    graph = FloatModel()
    x, c = graph.input("x", (1, 4)), graph.constant("c", np.float32(constant))
    options = getattr(schema, {"GREATER": "GreaterOptionsT", "LESS": "LessOptionsT"}.get(name, "EqualOptionsT"))()
    y = graph.add(name, [c, x] if first else [x, c], (1, 4), "y", options)
    graph.model.tensors[y].type = schema.TensorType.BOOL
    return graph.finish(y), c, x


@given(
    st.sampled_from(ORDERINGS),
    st.booleans(),
    st.floats(-4.0, 0.0),
    st.floats(0.5, 4.0),
    st.floats(0.01, 0.99),
)
def test_codes_are_told_apart_like_what_they_stand_for(name, first, low, high, share):
    grid = activation_grid(low, high)
    constant = np.float32(low + share * (high - low))
    model, at, _ = comparison(name, constant, first)
    moved = grid.quantize(compared_constant(model, model.operators[0], at, grid))
    codes = np.arange(-128, 128)
    real = (codes - grid.zero_point) * np.float64(grid.scale)
    clear = np.abs(real - constant) > 2e-3 * grid.scale  # else the constant lies on the grid
    operands = (lambda value, other: (other, value)) if first else (lambda value, other: (value, other))
    expected, found = COMPARISONS[name](*operands(real, constant)), COMPARISONS[name](*operands(codes, moved))
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("name", COMPARISONS)
def test_constants_on_the_grid_stay(name):
    grid = activation_grid(0.0, 6.0)  # as behind RELU6, where many values are exactly 6
    model, at, _ = comparison(name, 6.0, False)
    assert grid.quantize(compared_constant(model, model.operators[0], at, grid)) == 127


@pytest.mark.parametrize(("high", "fits"), [(0.9, False), (1.1, True), (200.0, True), (300.0, False)])
def test_steps_that_kernels_do_not_tell_apart(high, fits):
    model, _, x = comparison("GREATER", 0.1, False)
    assert can_compare(model, model.operators[0], {x: activation_grid(0.0, high)}) == fits


def conv(x, seed):
    return layers.Conv2D(4, 3, kernel_initializer=keras.initializers.RandomNormal(0, 0.2, seed=seed))(x)


def larger(x):
    first, second = conv(x, 0), conv(x, 1)
    return ops.where(first > second, first, second)


def among_small_values(x):
    first, second = conv(x, 0) / 200.0, conv(x, 1) / 200.0
    return ops.where(first > second, second, first + 0.01)


def below_a_constant(x):
    values = conv(x, 0)
    return ops.where(values > 0.7, 0.7, values)


MODELS = {  # least signal to noise
    "larger": (larger, 35),
    "threshold": (lambda x: ops.threshold(conv(x, 0), 0.2, 0.0), 32),
    "below a constant": (below_a_constant, 35),
    "inputs": (lambda x: ops.where(x > 0.1, x, 0.0), 35),
    "upper triangle": (lambda x: ops.triu(conv(x, 0)), 35),
    "small values": (among_small_values, 20),  # 5 dB where all steps below 1/256 are one
    "square": (lambda x: ops.square(conv(x, 0)), 35),
}


@pytest.mark.parametrize("name", MODELS)
def test_choices_by_comparisons(name):
    build, least = MODELS[name]
    samples = np.random.default_rng(1).normal(0, 1, (100, 8, 8, 3)).astype(np.float32)
    inputs = keras.Input((8, 8, 3), name="x")
    model = keras.Model(inputs, build(inputs))
    result = tfptq.quantize_keras_model(model, samples, "w8a8_channel", progress=False)
    expected = model.predict(samples, verbose=0)
    for resolver in RESOLVERS:
        found = next(iter(run(result.tflite, {"x": samples}, resolver).values()))
        assert signal_to_noise(expected, found) > least, resolver
    assert "SELECT_V2" not in [operator.operator for operator in result.report.float_operators]


def test_a_float_input_is_rounded_once():
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, ops.where(inputs > 0.1, inputs, 0.0))
    samples = np.random.default_rng(1).normal(0, 1, (100, 8)).astype(np.float32)
    found = TFLiteModel(tfptq.quantize_keras_model(model, samples, "w8a8_channel", progress=False).tflite)
    assert [found.operator_name(it) for it in found.operators] == ["GREATER", "QUANTIZE", "SELECT_V2", "DEQUANTIZE"]
