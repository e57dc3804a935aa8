import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import WEIGHT_BITS
from tfptq.core.bias_correction import quantize_bias
from tfptq.core.blocks import quantize_nearest
from tfptq.core.shift_scaler import channel_shifts, limit_shifts_for_bias, shift_scales
from tfptq.core.weight_scales import max_abs_scales


def spread_view(seed, outputs=12, spread=8):
    """Channels whose magnitudes differ by many powers of two."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(outputs, 4, 3)) * 2.0 ** rng.uniform(-spread, 0, (outputs, 1, 1))).astype(np.float32)


def channel_errors(view, scales, bits):
    error = quantize_nearest(view, scales, bits).dequantize().astype(np.float64) - view
    return (error**2).sum(axis=(1, 2))


@given(st.integers(0, 999), st.integers(0, 20), st.sampled_from(WEIGHT_BITS))
def test_shifts_follow_the_definition(seed, spread, bits):
    view = spread_view(seed, spread=spread)
    scales = shift_scales(view, bits)
    r = np.abs(view.astype(np.float64)).max(axis=(1, 2))
    k = [min(15, math.floor(math.log2(r.max() / rc))) for rc in r]
    np.testing.assert_array_equal(scales.factors[:, 0], -np.array(k))
    assert scales.base.shape == (1,) and scales.block_shape == (1, 4) and scales.factors.dtype == np.int8
    ratio = scales.values() / scales.base[0]
    assert scales.base[0] == pytest.approx(r.max() / (2 ** (bits - 1) - 1), rel=1e-6)
    assert ratio.min() >= 2.0**-15 and ratio.max() <= 1.0


@given(st.integers(0, 999), st.sampled_from(WEIGHT_BITS))
def test_error_bounds_of_every_channel(seed, bits):
    view = spread_view(seed)
    layer, shifted = max_abs_scales(view, (12, 4), bits), shift_scales(view, bits)
    error = np.abs(quantize_nearest(view, shifted, bits).dequantize() - view)
    assert (error <= 0.5001 * shifted.expand(12, 4)).all()
    # A finer dyadic grid holds all points of the coarser one, so no weight can lose.
    coarse = np.abs(quantize_nearest(view, layer, bits).dequantize() - view)
    slack = 1e-6 * np.abs(view).max(axis=(1, 2), keepdims=True)
    assert (error <= coarse + slack).all()


def test_rescues_channels_that_a_layer_scale_rounds_to_zero():
    view = spread_view(0, spread=14)
    layer = channel_errors(view, max_abs_scales(view, (12, 4), 8), 8)
    shifted = channel_errors(view, shift_scales(view, 8), 8)
    power = (view.astype(np.float64) ** 2).sum(axis=(1, 2))
    assert (layer / power).max() > 0.5 and (shifted / power).max() < 1e-3


@given(st.integers(0, 999), st.sampled_from(WEIGHT_BITS))
@settings(max_examples=25)
def test_search_is_never_worse(seed, bits):
    view = spread_view(seed)
    start = channel_errors(view, shift_scales(view, bits), bits).sum()
    scales = shift_scales(view, bits, search=True)
    assert channel_errors(view, scales, bits).sum() <= start * (1 + 1e-5)
    assert ((-scales.factors >= 0) & (-scales.factors <= 15)).all()


def test_dead_and_nearly_dead_channels():
    view = np.ones((4, 2, 1), np.float32)
    view[1], view[2] = 0.0, 1e-38
    for search in (False, True):
        scales = shift_scales(view, 8, search)
        assert scales.factors[1, 0] == 0 and scales.factors[2, 0] == -15
    assert shift_scales(np.zeros((3, 2, 1), np.float32), 8).values().max() > 0


def test_exact_powers_of_two_are_not_rounded_down():
    np.testing.assert_array_equal(
        channel_shifts(np.array([1.0, 0.5, 0.25, 0.5000001, 3.0, 0.0]), 1.0), [0, 1, 2, 0, 0, 0]
    )


@given(st.integers(0, 999), st.floats(1e-12, 1e-2), st.floats(1e-3, 1e9))
def test_bias_guard(seed, input_scale, magnitude):
    view = spread_view(seed, spread=16)
    bias = magnitude * np.random.default_rng(seed).normal(size=12)
    bias[3] = 0.0
    scales = shift_scales(view, 8)
    limited = limit_shifts_for_bias(scales, bias, input_scale)
    S = limited.values()[:, 0]
    codes = quantize_bias(bias, input_scale * S.astype(np.float64))
    assert np.abs(codes.astype(np.int64)).max() <= 2**30 * 1.001
    assert ((-limited.factors >= 0) & (-limited.factors <= 15)).all()
    fits = np.abs(bias) / (input_scale * scales.values()[:, 0].astype(np.float64)) < 2**30
    if fits.all():
        np.testing.assert_array_equal(limited.values(), scales.values())
