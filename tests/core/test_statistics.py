"""Statistics against the definition: patches by brute force, outputs by Keras."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core import statistics
from tfptq.core.blocks import WeightView
from tfptq.core.statistics import convolution_statistics, dense_statistics, position_step
from tfptq.core.windows import Window, window_sums

LAYERS = {
    "conv": (keras.layers.Conv2D(5, 3, padding="same"), Window((3, 3), padding="same"), ((3,), (2,), (0, 1))),
    "strided": (
        keras.layers.Conv2D(5, (3, 2), strides=2, padding="same"),
        Window((3, 2), (2, 2), padding="same"),
        ((3,), (2,), (0, 1)),
    ),
    "dilated": (
        keras.layers.Conv2D(5, 3, dilation_rate=2),
        Window((3, 3), dilations=(2, 2)),
        ((3,), (2,), (0, 1)),
    ),
    "pointwise": (keras.layers.Conv2D(5, 1), Window(), ((3,), (2,), (0, 1))),
    "pointwise_strided": (keras.layers.Conv2D(5, 1, strides=2), Window(strides=(2, 2)), ((3,), (2,), (0, 1))),
    "grouped": (keras.layers.Conv2D(6, 3, groups=2), Window((3, 3), groups=2), ((3,), (2,), (0, 1))),
    "depthwise": (
        keras.layers.DepthwiseConv2D(3, strides=2, padding="same"),
        Window((3, 3), (2, 2), padding="same", groups=4),
        ((2, 3), (), (0, 1)),
    ),
    "multiplier": (
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
        Window((3, 3), groups=4),
        ((2, 3), (), (0, 1)),
    ),
    "transposed_same": (
        keras.layers.Conv2DTranspose(5, (3, 2), strides=2, padding="same"),
        Window((3, 2), (2, 2), padding="same", transposed=True),
        ((2,), (3,), (0, 1)),
    ),
    "transposed_valid": (
        keras.layers.Conv2DTranspose(5, 2, strides=3),
        Window((2, 2), (3, 3), transposed=True),
        ((2,), (3,), (0, 1)),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_own_weights_are_a_perfect_fit(name):
    layer, window, axes = LAYERS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 9, 7, 4)).astype(np.float32)
    layer.build(x.shape)
    layer.bias.assign(random.normal(size=layer.bias.shape))
    z = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel)
    view = WeightView(kernel.shape, *axes).to_view(kernel)

    centred = convolution_statistics(x, z, window).centred()

    assert centred.output_snr(view) > 50.0
    np.testing.assert_allclose(centred.best_bias(view), np.asarray(layer.bias), atol=1e-4)
    np.testing.assert_allclose(centred.variance_z.reshape(-1), z.reshape(-1, z.shape[-1]).var(axis=0), rtol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_sums_of_windows_are_those_of_the_statistics(name):
    layer, window, _ = LAYERS[name]
    x = np.random.default_rng(0).normal(1.0, size=(3, 9, 7, 4)).astype(np.float32)
    z = np.asarray(layer(x))
    found = window_sums(x, z.shape[1:3], window)
    np.testing.assert_allclose(found, convolution_statistics(x, z, window).sum_x, rtol=1e-5, atol=1e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), shift=st.floats(-5.0, 5.0))
def test_output_error_is_the_measured_one(seed, shift):
    random = np.random.default_rng(seed)
    x = random.normal(shift, 1.0, (200, 6)).astype(np.float32)
    z = random.normal(size=(200, 3)).astype(np.float32)
    weight = random.normal(size=(3, 6))
    centred = dense_statistics(x, z).centred()
    view = weight[:, :, None]

    residual = z - x @ weight.T - centred.best_bias(view)

    np.testing.assert_allclose(residual.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(centred.output_error(view), np.mean(residual**2, axis=0), rtol=1e-3)


@pytest.mark.parametrize("step", [1, 3])
def test_shards_merge_to_one_pass(step):
    random = np.random.default_rng(1)
    window = Window((3, 3), padding="same")
    x = random.normal(size=(10, 5, 5, 2)).astype(np.float32)
    z = random.normal(size=(10, 5, 5, 3)).astype(np.float32)

    whole = convolution_statistics(x, z, window, step)
    parts = convolution_statistics(x[:4], z[:4], window, step)
    parts += convolution_statistics(x[4:], z[4:], window, step, first_position=4 * 25)

    assert whole.count == parts.count
    for field in ("sum_x", "sum_z", "sum_zz", "gram", "cross"):
        np.testing.assert_allclose(getattr(whole, field), getattr(parts, field), rtol=1e-4, atol=1e-4)


def test_a_weight_counts_positions_several_times():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    found = dense_statistics(x, z).weighted(3.0)
    expected = dense_statistics(np.tile(x, (3, 1)), np.tile(z, (3, 1)))
    for field in dataclasses.fields(expected):
        np.testing.assert_allclose(getattr(found, field.name), getattr(expected, field.name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_small_variances_of_large_numbers(groups):
    """As far as float32 tells the numbers apart, their covariance is known."""
    random = np.random.default_rng(3)
    x = (random.uniform(50.0, 100.0, 4) + 0.05 * random.normal(size=(40, 5, 5, 4))).astype(np.float32)
    z = (70.0 + 0.05 * random.normal(size=(40, 4, 4, 4))).astype(np.float32)
    window = Window((2, 2), groups=groups)
    centred = sum(
        (convolution_statistics(x[i : i + 8], z[i : i + 8], window) for i in (8, 16, 24, 32)),
        convolution_statistics(x[:8], z[:8], window),
    ).centred()

    taps = [x[:, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1)]
    patches = np.stack(taps, axis=-1).reshape(-1, groups, 16 // groups).astype(np.float64)
    outputs = z.reshape(-1, groups, 4 // groups).astype(np.float64)
    patches -= patches.mean(axis=0)
    outputs -= outputs.mean(axis=0)
    gram = np.einsum("mgk,mgl->gkl", patches, patches) / len(patches)
    cross = np.einsum("mgp,mgk->gpk", outputs, patches) / len(patches)
    np.testing.assert_allclose(centred.gram, gram, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(centred.cross, cross, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(centred.variance_z, np.square(outputs).mean(axis=0), rtol=1e-4)


def test_small_blocks_change_nothing(monkeypatch):
    random = np.random.default_rng(2)
    x, z = random.normal(size=(2, 700, 8)), random.normal(size=(2, 700, 3))
    whole = dense_statistics(x, z)
    monkeypatch.setattr(statistics, "BLOCK_SIZE", 1)
    np.testing.assert_allclose(dense_statistics(x, z).gram, whole.gram, rtol=1e-4, atol=1e-3)


@given(positions=st.integers(1, 20000), samples=st.integers(1, 2000), inputs=st.integers(1, 2000))
def test_position_step_keeps_enough(positions, samples, inputs):
    step = position_step(positions, samples, inputs)
    wanted = min(positions * samples, statistics.POSITIONS_PER_INPUT * inputs)
    assert step >= 1
    assert -(-positions * samples // step) >= wanted


def test_step_falls_on_all_columns():
    step = position_step(112 * 112, 1000, 27)
    assert step > 1
    assert len(set(np.arange(0, 112 * 112 * 20, step) % 112)) == 112


@pytest.mark.parametrize("exponent_x, exponent_z", [(-70, -70), (-120, -60), (-60, 0), (0, -100)])
@pytest.mark.parametrize("name", ["conv", "depthwise", "pointwise", "grouped"])
def test_very_small_values_are_as_exact_as_others(name, exponent_x, exponent_z):
    """Float32 would hold little or nothing of their squares."""
    layer, window, _ = LAYERS[name]
    x = (3.0 + np.random.default_rng(0).normal(size=(4, 9, 7, 4))).astype(np.float32)
    z = keras.ops.convert_to_numpy(layer(x))
    expected = convolution_statistics(x, z, window).scaled(exponent_x, exponent_z)
    found = convolution_statistics(np.ldexp(x, exponent_x), np.ldexp(z, exponent_z), window)
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


def test_errors_say_what_does_not_fit():
    x = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="2 rows of inputs but 3"):
        convolution_statistics(x, np.zeros((3, 4, 4, 2)), Window())
    with pytest.raises(ValueError, match="size 4 along spatial axis 0"):
        convolution_statistics(x, np.zeros((2, 4, 4, 2)), Window((3, 3)))
    with pytest.raises(ValueError, match="2 groups do not divide 3"):
        convolution_statistics(x, np.zeros((2, 4, 4, 2)), Window(groups=2))
    with pytest.raises(ValueError, match="must be 'same' or 'valid'"):
        Window(padding="SAME")
    with pytest.raises(ValueError, match="different layers"):
        dense_statistics(x, x) + dense_statistics(x, x[..., :2])
    with pytest.raises(ValueError, match="no positions"):
        dense_statistics(x[:0], x[:0]).centred()
    with pytest.raises(ValueError, match="not finite"):
        dense_statistics(x * np.nan, x).centred()
    with pytest.raises(ValueError, match="does not fit statistics"):
        dense_statistics(x, x).centred().output_error(np.zeros((2, 3, 1)))
