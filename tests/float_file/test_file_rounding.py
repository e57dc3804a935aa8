import keras
import numpy as np
import pytest

import tfptq
from tfptq.float_file.build import make_float_file
from tfptq.float_file.file_rounding import file_tolerances, rounding_noise
from tfptq.graph.float_equality import TOLERANCE

SAMPLES = np.random.default_rng(0).normal(size=(32, 12)).astype(np.float32)


def cancelling(inputs, offset):
    """Adds large numbers, which the converter does not know, and takes them off again."""
    large = offset * (2.0 + keras.ops.cos(inputs))
    return (keras.ops.sin(inputs) + large) - large


class Offset(keras.Model):
    def __init__(self, offset):
        super().__init__()
        self.offset, self.head = offset, keras.layers.Dense(5)

    def call(self, inputs):
        return self.head(cancelling(inputs, self.offset))


def float_file(offset):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,), name="x")
    outputs = keras.layers.Dense(5)(cancelling(inputs, offset)), keras.layers.Dense(2)(inputs)
    return make_float_file(keras.Model(inputs, outputs), {})


@pytest.mark.parametrize(("offset", "least", "most"), [(0.1, -1.0, 1e-5), (1e5, 1e-3, 1e-1)])
def test_cancellation_is_noise_of_the_output_behind_it(offset, least, most):
    file = float_file(offset)
    noise = rounding_noise(file, {"x": SAMPLES}, file.outputs)
    by_columns = {file.model.sizes(index)[-1]: value for index, value in noise.items()}
    assert least < by_columns[5] < most
    assert by_columns[2] < 1e-6


def test_only_an_output_that_rounding_moves_may_differ_more():
    file = float_file(1e5)
    first, second = file_tolerances(file, {"x": SAMPLES}, [(index, 1e-3) for index in file.outputs])
    wide = {file.model.sizes(index)[-1]: limit for index, limit in zip(file.outputs, (first, second), strict=True)}
    assert wide[2] == TOLERANCE < wide[5]
    small = [(index, TOLERANCE / 2) for index in file.outputs]
    assert file_tolerances(file, {"x": SAMPLES}, small) == [TOLERANCE] * 2


def test_a_subclassed_network_that_cancels_is_taken():
    keras.utils.set_random_seed(0)
    model = Offset(1e5)
    model(SAMPLES)
    result = tfptq.quantize(model, SAMPLES, "w8a8_channel", progress=False)
    assert [layer.bits for layer in result.report.layers] == [8]
