import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_runtimes import RUNTIMES, in_one_partition, run

from tfptq.core.windows import Window, tap_indices
from tfptq.float_file.convert import convert_float
from tfptq.tflite.layouts.gather import Mover, gather, operators_to_gather
from tfptq.tflite.model import TFLiteModel

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

WINDOWS = st.builds(
    Window,
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["same", "valid"]),
)


@functools.cache
def relu_file(shape):
    return convert_float(keras.Sequential([keras.Input(shape, name="x"), keras.layers.ReLU()]))


def gathered_file(size, window):
    """A file that gathers its input."""
    model = TFLiteModel(relu_file((*size, 2)))
    (source,) = model.subgraph.inputs
    mover = Mover(model, source)
    result = gather(mover, window)
    assert set(mover.moved.values()) <= {source}
    assert operators_to_gather(model.shape(source), window) == len(mover.operators)
    relu = model.operators[0]  # so that the file has an operator where nothing has to be moved
    relu.inputs = [result]
    output = model.tensors[relu.outputs[0]]
    output.shape, output.shapeSignature = model.tensors[result].shape, model.tensors[result].shapeSignature
    model.operators[:] = [*mover.operators, relu]
    model.remove_unused()
    return model.to_bytes()


@settings(max_examples=40)
@given(size=st.tuples(st.integers(4, 9), st.integers(4, 9)), window=WINDOWS)
def test_it_brings_together_what_each_output_reads(size, window):
    if min(window.output_size(size[axis], axis) for axis in (0, 1)) < 1:
        return
    file = gathered_file(size, window)
    x = np.random.default_rng(0).uniform(0.1, 1.0, (3, *size, 2)).astype(np.float32)
    outputs = tuple(window.output_size(size[axis], axis) for axis in (0, 1))
    padded, origins, offsets = tap_indices(x, outputs, window)
    expected = padded.reshape(-1, 2)[origins[:, None] + offsets].reshape(3, *outputs, -1)
    for runtime in RUNTIMES:
        for resolver in ("AUTO", "BUILTIN"):
            (found,) = run(file, {"x": x}, resolver, runtime).values()
            np.testing.assert_array_equal(found, expected)
    assert in_one_partition(file, x.shape)
