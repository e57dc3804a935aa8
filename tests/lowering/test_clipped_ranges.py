"""Clips behind kernels give their range back to the grid of what they read."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from keras import layers, ops
from stock_runtimes import run, signal_to_noise

import tfptq
from tfptq.lowering.clipped_ranges import cut_ranges, limits_of_readers

SAMPLES = np.random.default_rng(0).normal(0, 3, (200, 8, 8, 3)).astype(np.float32)


def convolution(x):
    return layers.Conv2D(8, 3, kernel_initializer=keras.initializers.RandomNormal(0, 1, seed=1), name="conv")(x)


MODELS = {  # least signal to noise: some 20 dB with the grid of all that the convolution gives
    "clip": (lambda x: ops.clip(convolution(x), -1.5, 3.0), 29),
    "minimum": (lambda x: ops.minimum(convolution(x), 1.0), 36),
    "maximum": (lambda x: ops.maximum(convolution(x), -0.5), 36),
    "moved": (lambda x: ops.clip(layers.Reshape((36, 8))(convolution(x)), 0.0, 6.0), 34),
    "relu6": (lambda x: layers.ReLU(6.0)(layers.Flatten()(convolution(x))), 34),
    "input": (lambda x: convolution(ops.clip(x, -0.7, 0.9)), 36),
    "minimum of two": (lambda x: ops.minimum(convolution(x), layers.Conv2D(8, 3)(x) - 2.0), 33),
    "largest": (lambda x: ops.max(convolution(x), axis=-1), 36),
    "pooled": (lambda x: layers.MaxPooling2D(3)(convolution(x)), 36),
    "maximum of numbers": (lambda x: ops.fmax(convolution(x), layers.Conv2D(8, 3)(x) + 4.0), 36),
    "in front of a kernel": (lambda x: layers.Dense(4)(layers.Flatten()(ops.clip(convolution(x), -2, 3))), 25),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_behind_a_kernel(name):
    build, least = MODELS[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="x")
    model = keras.Model(inputs, build(inputs))
    result = tfptq.quantize_keras_model(model, SAMPLES, "w8a8_channel", progress=False)
    found = next(iter(run(result.tflite, {"x": SAMPLES}).values()))
    assert signal_to_noise(model.predict(SAMPLES, verbose=0), found) > least
    # Nor is the layer whose values are cut off; that there are many of them may be told.
    assert {finding.kind for finding in result.report.findings} <= {"input-range"} and not result.report.notes


def chain(*kinds, outputs=()):
    """MUL, and one operator after the other on its result; ``outputs`` are positions that are returned, too."""
    graph = FloatModel()
    x = graph.input("x", (1, 4))
    tensors = [graph.add("MUL", [x, graph.constant("two", np.float32(2.0))], (1, 4), "mul", schema.MulOptionsT())]
    for kind, *bound in kinds:
        inputs = [tensors[-1], *(graph.constant(f"bound_{kind}", np.float32(value)) for value in bound)]
        options = schema.MaximumMinimumOptionsT() if bound else None
        tensors.append(graph.add(kind, inputs, (1, 4), None, options))
    model = graph.finish(tensors[-1], *(tensors[at] for at in outputs))
    return model, tensors


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([("MINIMUM", 6.0)], (-10.0, 6.0)),
        ([("MAXIMUM", -1.0)], (-1.0, 10.0)),
        ([("MINIMUM", 6.0), ("MAXIMUM", 0.0)], (0.0, 6.0)),
        ([("RELU6",)], (0.0, 6.0)),
        ([("RELU",), ("MINIMUM", 3.0)], (0.0, 3.0)),
        ([("MINIMUM", [[1.0, 2.0, 3.0, 4.0]])], (-10.0, 4.0)),
        ([("MINIMUM", 50.0)], None),
        ([("ABS",)], None),
        ([("MINIMUM", -10.0), ("MAXIMUM", 0.0)], None),  # nothing would be left
    ],
)
def test_ranges(kinds, expected):
    model, tensors = chain(*kinds)
    found = cut_ranges(model, dict.fromkeys(tensors, (-10.0, 10.0)))
    assert found.get(tensors[0]) == expected


def test_what_is_chosen_from_needs_no_more_than_the_result():
    graph = FloatModel()
    x, options = graph.input("x", (1, 4)), schema.MaximumMinimumOptionsT()
    first, second = (graph.add("ABS", [x], (1, 4), f"abs{at}") for at in range(2))
    larger = graph.add("MAXIMUM", [first, second], (1, 4), None, options)
    bounded = graph.add("MINIMUM", [larger, graph.constant("bound", np.float32(6.0))], (1, 4), None, options)
    ranges = {x: (-10.0, 10.0), first: (-9.0, 10.0), second: (-1.0, 8.0), larger: (-1.0, 10.0), bounded: (-1.0, 6.0)}
    assert cut_ranges(graph.finish(bounded), ranges) == dict.fromkeys([first, second, larger], (-1.0, 6.0))


def test_what_others_read_keeps_its_range():
    model, tensors = chain(("MINIMUM", 6.0), outputs=[0])
    assert tensors[0] not in cut_ranges(model, dict.fromkeys(tensors, (-10.0, 10.0)))
    assert tensors[0] not in limits_of_readers(model)


def test_what_is_compared_with_a_constant_needs_no_more_than_both_sides_of_it():
    model, tensors = chain()
    mask = model.add_activation_like(tensors[0], "mask", schema.TensorType.BOOL)
    bound = model.add_constant("bound", np.float32(2.0))
    model.operators.append(model.new_operator("GREATER", [tensors[0], bound], [mask], options=schema.GreaterOptionsT()))
    model.subgraph.outputs[:] = [mask]
    low, high = cut_ranges(model, {tensors[0]: (-10.0, 10.0)})[tensors[0]]
    assert 1.0 < low < 2.0 < high < 3.0
