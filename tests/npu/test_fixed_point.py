import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.npu.fixed_point import activation_range, check_int32, quantize_multiplier, rescale, rounding_shift_right

MULTIPLIERS = st.floats(2.0**-30, 2.0**10)
ACCUMULATORS = st.integers(-(2**20), 2**20 - 1)


def half_away(value: Fraction) -> int:
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value))


@given(MULTIPLIERS)
def test_multiplier_is_within_half_a_unit(multiplier):
    mantissa, exponent = quantize_multiplier(multiplier)
    assert 2**30 <= mantissa < 2**31
    assert abs(Fraction(mantissa) * Fraction(2) ** (exponent - 31) / Fraction(multiplier) - 1) <= Fraction(1, 2**31)


@given(MULTIPLIERS, st.integers(0, 15))
def test_a_shift_changes_only_the_exponent(multiplier, shift):
    mantissa, exponent = quantize_multiplier(multiplier)
    assert quantize_multiplier(math.ldexp(multiplier, -shift)) == (mantissa, exponent - shift)


def test_mantissa_that_rounds_up_to_a_power_of_two():
    assert quantize_multiplier(1 - 2.0**-40) == (2**30, 1)
    assert quantize_multiplier(0.0) == (0, 0)


@pytest.mark.parametrize("multiplier", [-1.0, math.inf, math.nan])
def test_refuses_impossible_multipliers(multiplier):
    with pytest.raises(ValueError, match="multiplier"):
        quantize_multiplier(multiplier)


@given(ACCUMULATORS, MULTIPLIERS)
def test_single_rounding_is_exact(value, multiplier):
    mantissa, exponent = quantize_multiplier(multiplier)
    exact = Fraction(value) * mantissa * Fraction(2) ** (exponent - 31)
    assert rescale(np.array([value]), mantissa, exponent, True)[0] == half_away(exact)


@given(ACCUMULATORS, MULTIPLIERS)
def test_double_rounding_rounds_each_step(value, multiplier):
    mantissa, exponent = quantize_multiplier(multiplier)
    left, right = max(exponent, 0), max(-exponent, 0)
    high = math.floor(Fraction(value * 2**left * mantissa, 2**31) + Fraction(1, 2))
    expected = half_away(Fraction(high, 2**right))
    assert rescale(np.array([value]), mantissa, exponent, False)[0] == expected


@given(st.integers(-(2**40), 2**40), st.integers(0, 31))
def test_rounding_shift(value, shift):
    assert rounding_shift_right(np.array([value]), shift)[0] == half_away(Fraction(value, 2**shift))


@pytest.mark.parametrize("single_rounding", [True, False])
def test_tiny_multipliers_give_zero(single_rounding):
    extremes = np.array([-(2**31), 2**31 - 1])
    for exponent in (-32, -40, -1000):
        assert not rescale(extremes, 2**31 - 1, exponent, single_rounding).any()


def test_overflow_is_refused():
    with pytest.raises(OverflowError, match="int32"):
        rescale(np.array([2**30]), 2**30, 2, False)
    with pytest.raises(OverflowError):
        check_int32(np.array([-(2**31) - 1]))


def test_activation_ranges():
    assert activation_range("NONE", 0.1, 3) == (-128, 127)
    assert activation_range("RELU", 0.1, 3) == (3, 127)
    assert activation_range("RELU6", 0.1, -100) == (-100, -40)
    assert activation_range("RELU_N1_TO_1", 0.5, 0) == (-2, 2)
    with pytest.raises(ValueError, match="TANH"):
        activation_range("TANH", 0.1, 0)
