import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.bias_correction import (
    bias_code_limits,
    correct_bias,
    limit_scales_for_bias,
    make_room_for_bias,
    quantize_bias,
)
from tfptq.core.blocks import BlockScales, float_scales, quantize_nearest
from tfptq.core.shift_scaler import BIAS_CODE_LIMIT, shift_scales
from tfptq.core.weight_scales import max_abs_scales


@given(st.integers(0, 999), st.sampled_from(["dense", "taps", "depthwise"]))
def test_corrected_bias_restores_the_mean_output(seed, kind):
    rng = np.random.default_rng(seed)
    shape = {"dense": (5, 7, 1), "taps": (5, 3, 4), "depthwise": (6, 1, 9)}[kind]
    view, bias = rng.normal(size=shape), rng.normal(size=shape[0])
    quantized = quantize_nearest(view, max_abs_scales(view, shape[:2], 3), 3).dequantize()
    rows = shape[0] if kind == "depthwise" else 1
    samples = rng.normal(1.0, 1.0, (50, rows, *shape[1:]))
    mean = samples.mean(axis=0)
    outputs = np.einsum("oit,noit->no", view, np.broadcast_to(samples, (50, *shape))) + bias
    actual = np.einsum("oit,noit->no", quantized, np.broadcast_to(samples, (50, *shape)))
    if kind == "dense":
        mean = mean[0, :, 0]
    elif kind == "taps":
        mean = mean[0]
    corrected = correct_bias(bias, view, quantized, mean)
    np.testing.assert_allclose((actual + corrected).mean(axis=0), outputs.mean(axis=0), atol=1e-5)


def test_unquantized_weights_leave_the_bias_alone():
    view = np.ones((3, 2, 1), np.float32)
    np.testing.assert_array_equal(correct_bias(np.arange(3.0), view, view, np.ones(2)), [0, 1, 2])


@pytest.mark.parametrize("shape", [(4,), (6, 9, 9), (2, 9)])
def test_a_mean_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="does not fit a weight"):
        correct_bias(np.zeros(6), np.zeros((6, 1, 9)), np.zeros((6, 1, 9)), np.zeros(shape))


def test_bias_codes():
    np.testing.assert_array_equal(quantize_bias(np.array([1.0, -0.26]), 0.1), [10, -3])
    assert quantize_bias(np.zeros(2), np.ones(2)).dtype == np.int32
    assert quantize_bias(np.array([1e10]), 1.0, np.int64) == 10**10
    for bad in (1e10, np.nan):
        with pytest.raises(ValueError, match="output channel 1 does not fit half of int32"):
            quantize_bias(np.array([0.0, bad]), np.ones(2))


@pytest.mark.parametrize("kind", ["float", "integer", "shift", "wes"])
def test_scales_grow_only_where_the_bias_needs_it(kind):
    tiny = np.float32(1e-12)
    bias = np.array([1.0, 1e-6, 0.0, 1e-3])
    if kind == "float":
        scales = float_scales(np.full((4, 1), tiny), (1, 3))
    elif kind == "wes":
        scales = BlockScales("shift", np.float32([0.01]), np.int8([[-15], [-3], [0], [-15]]), (1, 3))
    else:
        scales = BlockScales(kind, np.full(4, tiny), np.ones((4, 2), np.int8), (1, 2))
    input_scale = 1e-4 if kind == "wes" else 1.0
    grown = limit_scales_for_bias(scales, bias, input_scale)
    row = grown.values().min(axis=1).astype(np.float64)
    assert np.abs(quantize_bias(bias, input_scale * row)).max() <= 2**30
    np.testing.assert_array_equal(grown.values()[1:3], scales.values()[1:3])
    assert (grown.values()[0] > scales.values()[0]).all()


@given(st.integers(0, 999), st.sampled_from(["float", "integer", "shift", "wes"]), st.integers(-20, 2))
def test_room_for_a_bias(seed, kind, exponent):
    """The int8 form holds the bias, rows that could hold it before stay, others move by half a code at most."""
    random = np.random.default_rng(seed)
    view = random.normal(size=(6, 4, 2)) * 10.0 ** random.integers(exponent - 6, exponent, (6, 1, 1))
    view[random.random(6) < 0.3] = 0.0
    bias, input_scale = random.normal(size=6) * (random.random(6) < 0.7), 10.0 ** random.integers(-4, 1)
    if kind == "wes":
        scales = shift_scales(view, 4)
    else:
        factors = {"integer": random.integers(1, 17, (6, 2)), "shift": random.integers(0, 4, (6, 2))}.get(kind)
        base = np.maximum(np.abs(view).max(axis=(1, 2)) / 7, 1e-30).astype(np.float32)
        scales = BlockScales(kind, base / 16, factors.astype(np.int8), (1, 2)) if kind != "float" else None
        scales = scales or float_scales(base[:, None], (1, 4))
    weight = quantize_nearest(view, scales, 4)

    settled = make_room_for_bias(weight, bias, input_scale)

    held = settled.int8_form()[1].astype(np.float64)
    assert np.abs(bias / (input_scale * held)).max() <= 2**30
    overflowed = np.abs(bias / (input_scale * weight.int8_form()[1].astype(np.float64))) > BIAS_CODE_LIMIT
    if kind != "wes" or not overflowed.any():
        np.testing.assert_array_equal(settled.dequantize()[~overflowed], weight.dequantize()[~overflowed])
    moved = np.abs(settled.dequantize() - weight.dequantize())
    assert (moved <= 0.5 * settled.scale_per_weight * (1 + 1e-6)).all()
    assert overflowed.any() or settled is weight


def test_rows_with_several_float_scales_are_left_alone():
    scales = float_scales(np.full((1, 2), 1e-12), (1, 1))
    assert limit_scales_for_bias(scales, np.ones(1), 1.0) is scales


def test_limits_of_bias_codes():
    """int32 with 8-bit activations; with 16-bit ones as much as the sum and the multiplier of runtimes allow."""
    bias = np.array([1.0, -1.0, 1e-4, 0.0])
    np.testing.assert_array_equal(bias_code_limits(bias, 8, 0.1), [BIAS_CODE_LIMIT] * 4)
    limits = bias_code_limits(bias, 16, 2.0**-15)
    np.testing.assert_array_equal(limits[:2], [2**46 - 2**36] * 2)
    assert limits[3] == BIAS_CODE_LIMIT < limits[2] < 2**34
    scales = np.abs(bias[:3]) / limits[:3]  # times the input's
    assert (scales / 2.0**-15 > 2.0**-32).all()


def test_int64_biases_leave_small_weights_alone():
    view = np.full((2, 3, 1), 1e-6, np.float32)
    weight = quantize_nearest(view, max_abs_scales(view, (1, 3), 8), 8)
    bias, input_scale = np.array([1.0, 0.0]), 2.0**-15
    assert not make_room_for_bias(weight, bias, input_scale).codes[0].any()
    roomy = make_room_for_bias(weight, bias, input_scale, bias_code_limits(bias, 16, 2.0**-15))
    assert roomy is weight
    codes = quantize_bias(bias, input_scale * weight.int8_form()[1].astype(np.float64), np.int64)
    assert 2**31 < codes[0] < 2**46
    with pytest.raises(ValueError, match="does not fit half of int64"):
        quantize_bias(np.array([2.0**47]), 1.0, np.int64)
