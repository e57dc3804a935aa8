import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import ActivationGrid
from tfptq.layers.fake_quantize import fake_quantize, nearest_codes

scales = st.floats(2.0**-40, 2.0**20, width=32)


@settings(max_examples=100)
@given(scale=scales, bits=st.sampled_from([4, 8, 16]), seed=st.integers(0, 2**32 - 1))
def test_ties_and_their_neighbours_round_as_in_float64(scale, bits, seed):
    limit = 2 ** (bits - 1)
    halves = np.random.default_rng(seed).integers(-2 * limit, 2 * limit, 200) / 2.0
    ties = (halves * np.float64(scale)).astype(np.float32)
    values = np.concatenate([ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])
    expected = np.rint(values.astype(np.float64) / np.float64(scale))
    np.testing.assert_array_equal(nearest_codes(tf.constant(values), tf.constant(scale, tf.float32)), expected)


@settings(max_examples=50)
@given(scale=scales, bits=st.sampled_from([4, 5, 6, 7, 8, 16]), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_equals_the_activation_grid_bit_for_bit(scale, bits, seed, data):
    low, high = ActivationGrid(scale, 0, bits).code_range
    zero_point = 0 if bits == 16 else data.draw(st.integers(low, high))
    grid = ActivationGrid(scale, zero_point, bits)
    rng = np.random.default_rng(seed)
    values = (rng.uniform(1.5 * low, 1.5 * high, 300) * scale).astype(np.float32)
    values[:3] = 0.0, np.inf, -np.inf
    result = fake_quantize(tf.constant(values), tf.constant(scale), float(zero_point), low, high)
    np.testing.assert_array_equal(result.numpy(), grid.dequantize(grid.quantize(values)))


def test_gradient_is_one_on_the_grid_and_zero_where_clipped():
    values = tf.Variable([-1.0, -0.52, -0.5, 0.0, 0.26, 0.74, 0.76, 3.0])
    with tf.GradientTape() as tape:
        # Codes -2..3 with zero point 0: real values -0.5..0.75; up to half a step beyond still rounds to the last.
        result = fake_quantize(values, tf.constant(0.25), 0.0, -2, 3)
    np.testing.assert_array_equal(result, [-0.5, -0.5, -0.5, 0.0, 0.25, 0.75, 0.75, 0.75])
    np.testing.assert_array_equal(tape.gradient(result, values), [0, 1, 1, 1, 1, 1, 1, 0])


def test_no_gradient_reaches_the_scale():
    scale = tf.Variable(0.25)
    with tf.GradientTape() as tape:
        result = fake_quantize(tf.constant([0.3, 9.0]), scale, 0.0, -2, 3)
    assert tape.gradient(result, scale) is None


def test_a_scale_of_zero_passes_values_through():
    values = tf.Variable([[0.1, -7.3, 1e30]])
    with tf.GradientTape() as tape:
        result = fake_quantize(values, tf.constant(0.0), 0.0, -128, 127)
    np.testing.assert_array_equal(result, values)
    np.testing.assert_array_equal(tape.gradient(result, values), np.ones((1, 3)))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_type_of_the_values_stays(dtype):
    values = keras.ops.cast([0.3, 0.6], dtype)
    assert keras.backend.standardize_dtype(fake_quantize(values, tf.constant(0.5), 0.0, -128, 127).dtype) == dtype


def test_compiled_function_agrees_with_eager():
    values = tf.constant(np.random.default_rng(0).normal(0, 1, 10000), tf.float32)
    scale = tf.constant(0.0123)
    eager = fake_quantize(values, scale, 3.0, -128, 127)
    np.testing.assert_array_equal(tf.function(lambda: fake_quantize(values, scale, 3.0, -128, 127))(), eager)
