import threading

import keras
import numpy as np
import pytest

from tfptq.evaluation.runner import FileRunner, file_ends, from_codes, in_threads, to_codes
from tfptq.float_file.convert import convert_float
from tfptq.tflite.interface import InterfaceRow

X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def dense(batch_size=None):
    inputs = keras.Input((5,), batch_size=batch_size, name="x")
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


@pytest.mark.parametrize("size", [None, 1, 3, 10])
def test_open_and_fixed_batches(size):
    model = dense(size)
    content = convert_float(model)
    ends = file_ends(content)
    assert ends.batch_size == size and str(ends.specs[0]) == "float32 of shape [batch, 5]"
    runner = FileRunner.of(content, ends)
    for part in (X, X[:2], X):
        (found,) = runner.run([part])
        assert found == pytest.approx(part @ model.layers[1].kernel.numpy(), abs=1e-5)


def test_codes_and_real_values():
    row = InterfaceRow("input", 0, "x", (None, 2), "int8", 0.5, -10)
    codes = to_codes(np.float32([[0.6, 100.0], [-1e38, 3.4e38]]), row)
    assert codes.dtype == np.int8 and codes.tolist() == [[-9, 127], [-128, 127]]
    assert from_codes(codes, row).tolist() == [[0.5, 68.5], [-59.0, 68.5]]
    ids = InterfaceRow("input", 0, "ids", (None, 2), "int32", None, None)
    assert to_codes(np.int64([[3, 4]]), ids).dtype == np.int32


def test_outputs_without_a_batch_axis_are_refused():
    inputs = keras.Input((5,), name="x")
    content = convert_float(keras.Model(inputs, keras.ops.sum(inputs)))
    with pytest.raises(ValueError, match="for 7 samples; only outputs with a batch axis"):
        FileRunner.of(content).run([X])


def test_threads_keep_the_order_and_do_not_read_far_ahead():
    read, made = [], []

    def items():
        for number in range(40):
            read.append(number)
            yield number

    def make_work():
        made.append(threading.get_ident())
        return lambda number: number**2

    results = in_threads(make_work, items(), 3)
    assert next(results) == 0 and len(read) <= 8
    assert list(results) == [number**2 for number in range(1, 40)]
    assert 1 <= len(set(made)) == len(made) <= 3


def test_errors_of_threads_reach_the_caller():
    def fail(number):
        raise KeyError(number)

    with pytest.raises(KeyError, match="0"):
        list(in_threads(lambda: fail, range(5), 2))
