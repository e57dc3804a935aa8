"""Ranges and mean inputs, measured on a float file, against what Keras computes."""

import keras
import numpy as np
import pytest
from keras import layers

from tfptq.config import Calibration
from tfptq.fit.measure import measure
from tfptq.fit.measurements import HEADROOM
from tfptq.float_file.build import make_float_file
from tfptq.pipeline.steps import kernel_views

CALIBRATION = Calibration("min_max")


def float_file_of(model):
    return make_float_file(model, kernel_views(model))


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((7, 7, 4), name="x")
    y = layers.Conv2D(6, 3, strides=2, padding="same", name="conv")(inputs)
    y = layers.Conv2D(6, 2, groups=2, dilation_rate=2, padding="same", name="grouped")(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="transposed")(y)
    return keras.Model(inputs, layers.Dense(3, name="dense")(y))


@pytest.fixture(scope="module")
def float_file(network):
    return float_file_of(network)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).normal(1.0, 1.0, (12, 7, 7, 4)).astype(np.float32)


def batches(values, size):
    return [{"x": values[start : start + size]} for start in range(0, len(values), size)]


def test_ranges_are_those_of_keras(network, float_file, values):
    found = measure(float_file, batches(values, 5), CALIBRATION)
    ranges = found.ranges(CALIBRATION, 8)
    assert found.samples == 12
    assert set(ranges) == set(float_file.model.activations())
    probe = keras.Model(network.input, {layer.name: layer.output for layer in network.layers[1:]})
    expected = probe(values)
    for kernel in float_file.kernels:
        outputs = np.asarray(expected[kernel.id.layer])
        (use,) = kernel.uses
        np.testing.assert_allclose(ranges[use.output], (outputs.min(), outputs.max()), rtol=1e-4, atol=1e-5)


def test_batches_make_no_difference(float_file, values):
    one, other = (measure(float_file, batches(values, size), CALIBRATION) for size in (12, 5))
    for index, expected in one.ranges(CALIBRATION, 8).items():
        np.testing.assert_allclose(other.ranges(CALIBRATION, 8)[index], expected, rtol=1e-5, atol=1e-6)
    for use in float_file.uses:
        np.testing.assert_allclose(other.mean_input(use), one.mean_input(use), rtol=1e-5, atol=1e-6)


def test_mean_inputs_give_the_mean_outputs(network, float_file, values):
    """By linearity W E[x] is (biases are 0) the mean output of a kernel, padding, strides and groups included."""
    found = measure(float_file, batches(values, 4), CALIBRATION)
    probe = keras.Model(network.input, {layer.name: layer.output for layer in network.layers[1:]})
    expected = probe(values)
    for kernel in float_file.kernels:
        mean = np.broadcast_to(found.mean_input(kernel.uses[0]), kernel.shape)
        by_mean = (kernel.values.astype(np.float64) * mean).sum(axis=(1, 2))
        outputs = np.asarray(expected[kernel.id.layer], np.float64).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(by_mean, outputs, rtol=1e-4, atol=1e-4, err_msg=kernel.id.label)


def test_inputs_of_any_size():
    inputs = keras.Input((None, None, 2), name="x")
    float_file = float_file_of(keras.Model(inputs, layers.Conv2D(3, 3, padding="same", name="conv")(inputs)))
    rng = np.random.default_rng(0)
    sizes = [(3, 4, 4, 2), (2, 6, 5, 2)]
    found = measure(float_file, [{"x": rng.normal(size=size).astype(np.float32)} for size in sizes], CALIBRATION)
    assert found.samples == 5
    assert np.isfinite(found.mean_input(float_file.kernel("conv").uses[0])).all()


def test_progress_counts_samples(float_file, values):
    steps = []
    measure(float_file, batches(values, 5), CALIBRATION, steps.append)
    assert steps == [5, 5, 2]


def test_tensors_that_are_not_finite_are_named():
    inputs = keras.Input((3,), name="x")
    y = layers.Dense(2, name="dense")(layers.Lambda(lambda x: keras.ops.log(x), name="log")(inputs))
    float_file = float_file_of(keras.Model(inputs, y))
    with pytest.raises(ValueError, match="calibration of tensor '.*[Ll]og.*NaN"):
        measure(float_file, [{"x": np.full((2, 3), -1.0, np.float32)}], CALIBRATION)


def test_16_bit_ranges_leave_room_for_values_that_calibration_has_not_seen(float_file, values):
    found = measure(float_file, batches(values, 5), CALIBRATION)
    seen, roomy = found.ranges(CALIBRATION, 16), found.ranges(Calibration("mse"), 16)
    for index, (low, high) in seen.items():
        assert roomy[index] == (HEADROOM * low, HEADROOM * high)
