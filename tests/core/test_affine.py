import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.affine import (
    ACTIVATION_BITS,
    EMPTY_SCALE,
    WEIGHT_BITS,
    activation_grid,
    nearest_codes,
    weight_code_limit,
    weight_code_range,
)

finite = st.floats(-(2.0**99), 2.0**99, width=32)


@given(finite, finite, st.sampled_from(ACTIVATION_BITS))
def test_grid_covers_its_range_to_half_a_step_and_holds_zero_exactly(a, b, bits):
    grid = activation_grid(min(a, b), max(a, b), bits)
    low, high = grid.real_range
    slack = 0.5001 * grid.scale
    assert low <= min(a, b, 0.0) + slack
    assert high >= max(a, b, 0.0) - slack
    assert grid.dequantize(grid.quantize(np.zeros(1)))[0] == 0.0
    assert grid.scale > 0.0 and grid.code_range[0] <= grid.zero_point <= grid.code_range[1]


@given(st.sampled_from(ACTIVATION_BITS), st.floats(0.0, 1e6), st.floats(1e-3, 1e6))
def test_codes_round_trip(bits, below, above):
    grid = activation_grid(-below, above, bits)
    low, high = grid.code_range
    codes = np.unique(np.linspace(low, high, 300).astype(int))
    np.testing.assert_array_equal(grid.quantize(grid.dequantize(codes)), codes)


def test_one_sided_ranges_spend_all_codes_on_their_side():
    assert activation_grid(0.0, 6.0).zero_point == -128
    assert activation_grid(1.0, 6.0).real_range[0] == 0.0
    assert activation_grid(-3.0, 0.0).zero_point == 127


def test_values_outside_saturate():
    grid = activation_grid(-1.0, 1.0)
    np.testing.assert_array_equal(grid.quantize(np.array([-9.0, 9.0])), [-128, 127])
    assert activation_grid(-1.0, 1.0, 16).quantize(np.array([-9.0])).dtype == np.int16


def test_an_always_zero_tensor_gets_a_usable_grid():
    grid = activation_grid(0.0, 0.0)
    assert (grid.scale, grid.zero_point) == (EMPTY_SCALE, -128)


@pytest.mark.parametrize("bound", [1.0, 2.0, 0.9999, 1.0001, 2.0**-7])
def test_16_bit_scales_are_no_powers_of_two(bound):
    grid = activation_grid(-bound, bound, 16)
    exponent = np.log2(grid.scale)
    assert abs(exponent - np.rint(exponent)) > 0.001  # what TFLite takes for a whole number
    assert bound <= grid.real_range[1] < 1.01 * bound
    assert activation_grid(*grid.real_range, 16) == grid


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1.0), (0.0, np.inf), (2.0, 1.0)])
def test_bad_ranges_are_refused(low, high):
    with pytest.raises(ValueError, match="activation range"):
        activation_grid(low, high)


@given(st.sampled_from(WEIGHT_BITS), st.lists(finite, min_size=1, max_size=20), st.floats(1e-6, 1e6))
def test_weight_codes_are_nearest_and_mirrored_but_for_the_lowest(bits, values, scale):
    values = np.array(values)
    codes = nearest_codes(values, scale, bits)
    limit = weight_code_limit(bits)
    mirrored = np.maximum(codes, -limit)
    np.testing.assert_array_equal(np.maximum(nearest_codes(-values, scale, bits), -limit), -mirrored)
    low, high = weight_code_range(bits)
    assert low <= codes.min() and codes.max() <= high
    inside = (low * scale <= values) & (values <= high * scale)
    assert (np.abs(values - codes * scale)[inside] <= 0.5000001 * scale).all()


def test_narrow_weight_codes_use_the_whole_range():
    assert [weight_code_range(bits) for bits in WEIGHT_BITS] == [
        (-2, 1),
        (-4, 3),
        (-8, 7),
        (-15, 15),
        (-31, 31),
        (-127, 127),
    ]
    np.testing.assert_array_equal(nearest_codes(np.array([-9.0, -8.4, 7.6]), 1.0, 4), [-8, -8, 7])
