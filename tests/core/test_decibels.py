import numpy as np
import pytest

from tfptq.core.decibels import decibels, powers, signal_to_noise

ONES = np.ones(3, np.float32)


def test_a_tenth_of_the_values_is_twenty_decibels():
    assert signal_to_noise(ONES, 1.1 * ONES) == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize("values", [ONES, np.zeros(3, np.float32)])
def test_no_noise_is_infinite(values):
    assert signal_to_noise(values, values) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_all_noise(value):
    assert signal_to_noise(ONES, np.float32([1.0, 1.0, value])) == -np.inf
    assert signal_to_noise(np.float32([1.0, 1.0, value]), ONES) == -np.inf


def test_noise_without_a_signal_is_all_noise():
    assert signal_to_noise(np.zeros(3), ONES) == -np.inf


def test_powers_of_batches_add_up():
    rng = np.random.default_rng(0)
    expected, found = rng.normal(size=(2, 8, 5))
    parts = sum(powers(expected[rows], found[rows]) for rows in (slice(3), slice(3, None)))
    assert decibels(*parts) == pytest.approx(signal_to_noise(expected, found))
