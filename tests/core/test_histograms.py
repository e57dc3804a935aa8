import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.histograms import histogram

values = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=40).map(
    lambda v: np.array(v, np.float32)
)


def same(a, b):
    np.testing.assert_array_equal(a.counts, b.counts)
    assert (a.low, a.high, a.exponent, a.first, a.zeros) == (b.low, b.high, b.exponent, b.first, b.zeros)


@given(values, values)
def test_sum_is_the_histogram_of_the_union_and_commutes(x, y):
    a, b = histogram(x, 256), histogram(y, 256)
    same(a + b, histogram(np.concatenate([x, y]), 256))
    same(b + a, a + b)


@given(values, values, values)
def test_sum_is_associative(x, y, z):
    a, b, c = (histogram(v, 64) for v in (x, y, z))
    same((a + b) + c, a + (b + c))


@given(values)
def test_every_value_lies_in_its_bin(x):
    counted = histogram(x, 256)
    assert counted.total == len(x) and len(counted.counts) <= 256
    assert counted.zeros == (x == 0).sum()
    edges = counted.edges
    assert edges[0] == min(x.min(), 0.0) and edges[-1] == max(x.max(), 0.0)
    assert counted.first <= 0 < counted.first + len(counted.counts)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_at_least_half_of_the_bins_are_in_use(scale):
    x = np.linspace(-1, 3, 5000).astype(np.float32) * np.float32(scale)
    assert 128 <= len(histogram(x, 256).counts) <= 256


def test_weights_multiply_counts():
    x = np.array([0.0, 1.0, -2.0], np.float32)
    same(histogram(x, 64, 3), histogram(np.repeat(x, 3), 64))


def test_different_bins_do_not_merge():
    with pytest.raises(ValueError, match="cannot be merged"):
        histogram(np.ones(1), 64) + histogram(np.ones(1), 128)
