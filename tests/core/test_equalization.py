"""Factors for channels: never worse than none, within their limits, and right where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.equalization import Reader, equalizing_factors


def noise(reader, factors):
    """Squared steps of the rows times the power of the inputs, as the module's docstring has it."""
    largest = np.maximum((reader.magnitudes / factors).max(axis=1), reader.others)
    power = np.sum(factors**2) + reader.other_inputs
    start = np.maximum(reader.magnitudes.max(axis=1), reader.others) ** 2
    return np.sum(largest**2) * power / (start.sum() * (len(factors) + reader.other_inputs))


def limits(size, lowest=1e-6, highest=1e6):
    return np.full(size, lowest), np.full(size, highest)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(2, 12),
    rows=st.integers(1, 9),
    readers=st.integers(1, 3),
    spread=st.floats(0.0, 2.0),
)
def test_noise_falls_and_limits_hold(seed, size, rows, readers, spread):
    random = np.random.default_rng(seed)
    columns = np.exp(spread * random.normal(size=size))
    kernels = [Reader(np.abs(random.normal(size=(rows, size))) * columns, np.zeros(rows)) for _ in range(readers)]
    lowest = np.where(random.random(size) < 0.3, 1.0, random.uniform(0.05, 1.0, size))
    highest = np.where(random.random(size) < 0.3, 1.0, random.uniform(1.0, 4.0, size))
    factors = equalizing_factors(kernels, lowest, highest)
    assert np.all(factors >= lowest * (1 - 1e-9)) and np.all(factors <= highest * (1 + 1e-9))
    # The search minimises a p-norm in place of the maximum; with that it never loses, and the two are close.
    assert sum(noise(kernel, factors) for kernel in kernels) <= readers * size**0.25 + 1e-9


def test_columns_that_differ_by_a_factor_are_levelled():
    random = np.random.default_rng(0)
    columns = np.array([1.0, 1.0, 4.0, 4.0, 16.0, 16.0, 1.0, 4.0])
    reader = Reader(random.uniform(0.5, 1.0, (64, 8)) * columns, np.zeros(64))
    factors = equalizing_factors([reader], *limits(8))
    relative = factors / factors[0]
    # Full levelling would be 4 and 16; some of it is left, as larger inputs make errors larger.
    assert np.all((relative[[2, 3, 7]] > 2.0) & (relative[[2, 3, 7]] < 4.0))
    assert np.all((relative[[4, 5]] > 6.0) & (relative[[4, 5]] < 16.0))
    assert noise(reader, factors) < 0.7


def test_equal_columns_stay():
    factors = equalizing_factors([Reader(np.ones((4, 6)), np.zeros(4))], *limits(6))
    np.testing.assert_array_equal(factors, np.ones(6))


def test_inputs_beyond_the_channels_hold_the_factors_back():
    magnitudes = np.array([[1.0, 8.0]])
    alone = equalizing_factors([Reader(magnitudes, np.zeros(1))], *limits(2))
    beside = equalizing_factors([Reader(magnitudes, np.full(1, 16.0), 2)], *limits(2))
    assert alone[1] / alone[0] > 2.0
    assert np.all(beside < 1.0)  # the step stays that of the others, so growing costs and saves nothing


def test_the_more_important_reader_decides():
    first, second = (Reader(np.array([row]), np.zeros(1)) for row in ([1.0, 4.0], [4.0, 1.0]))

    def ratio(important, other):
        factors = equalizing_factors([important, Reader(other.magnitudes, other.others, 0, 1e-4)], *limits(2))
        return factors[1] / factors[0]

    assert ratio(first, second) > 1.5
    assert ratio(second, first) < 1 / 1.5
    both = equalizing_factors([first, second], *limits(2))
    assert both[1] == pytest.approx(both[0])


@pytest.mark.parametrize("magnitudes", [np.zeros((3, 4)), np.eye(4), np.full((2, 4), 1e-30), np.full((2, 4), 1e30)])
def test_zero_and_extreme_weights_give_finite_factors(magnitudes):
    factors = equalizing_factors([Reader(magnitudes, np.zeros(len(magnitudes)))], *limits(4, 0.1, 8.0))
    assert np.all(np.isfinite(factors)) and np.all((factors >= 0.1) & (factors <= 8.0))
