import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import SMALLEST_SCALE, activation_grid
from tfptq.core.range_search import expected_error
from tfptq.core.ranges import CALIBRATION_METHODS, TensorStatistics, activation_range

arrays = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60).map(lambda v: np.array(v, np.float32))


def observe(*batches, bins=2048):
    statistics = TensorStatistics(bins)
    for batch in batches:
        statistics.update(batch)
    return statistics


def true_error(x, grid):
    return float(np.sum((grid.dequantize(grid.quantize(x)).astype(np.float64) - x) ** 2))


@given(arrays, arrays, arrays)
def test_merged_streams_equal_one_stream(x, y, z):
    whole = observe(x, y, z)
    for merged in (observe(x) + observe(y, z), (observe(x) + observe(y)) + observe(z), observe() + whole):
        np.testing.assert_array_equal(merged.histogram.counts, whole.histogram.counts)
        assert merged.count == whole.count
        assert (merged.minimum, merged.maximum) == (whole.minimum, whole.maximum)


def test_large_batches_are_sampled_but_extremes_are_kept():
    x = np.random.default_rng(0).normal(size=(4, 64, 64, 16)).astype(np.float32)
    x[..., 3] += 5.0
    x[2, 10, 10, 7], x[3, 1, 1, 1] = 60.0, -40.0
    statistics = observe(x)
    assert (statistics.histogram.low, statistics.histogram.high) == (-40.0, 60.0)
    assert statistics.histogram.total == pytest.approx(x.size, rel=0.01)
    edges, counts = statistics.histogram.edges, statistics.histogram.counts
    sampled_share = counts[edges[:-1] >= 4.0].sum() / counts.sum()
    assert sampled_share == pytest.approx((x >= 4.0).mean(), rel=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        observe(np.array([1.0, bad, 0.0]))


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="holds no values"):
        observe(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="no calibration data"):
        activation_range(TensorStatistics())
    with pytest.raises(ValueError, match="method is 'kl'; it must be one of 'min_max'"):
        activation_range(observe(np.ones(2)), "kl")
    with pytest.raises(ValueError, match="do not add up"):
        observe(np.ones(2)) + observe(np.ones(2), bins=512)


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
@given(x=arrays, bits=st.sampled_from([4, 8, 16]))
@settings(max_examples=30)
def test_ranges_stay_within_what_was_seen(method, x, bits):
    low, high = activation_range(observe(x), method, bits=bits)
    grid = activation_grid(low, high, bits)
    # Rounding of the zero point moves both ends by up to half a step; 16-bit grids are symmetric.
    slack = 0.51 * grid.scale + 1e-6 * np.abs(x).max() + 2**bits * SMALLEST_SCALE
    reach = np.abs(x).max() if bits == 16 else 0.0
    assert low <= high and high - low <= max(x.max(), 0.0, reach) - min(x.min(), 0.0, -reach) + 2 * slack
    if method != "mse":
        assert min(x.min(), 0.0, -reach) - slack <= low and high <= max(x.max(), 0.0, reach) + slack


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-38, 1e37])
def test_constant_tensors(method, value):
    low, high = activation_range(observe(np.full(100, value)), method, bits=8)
    grid = activation_grid(low, high)
    assert grid.dequantize(grid.quantize(np.array([value])))[0] == pytest.approx(value, rel=2e-3, abs=1e-18)


@given(x=arrays, bits=st.sampled_from([4, 6, 8, 16]))
@settings(max_examples=50)
def test_mse_is_never_worse_than_min_max(x, bits):
    counts = observe(x).histogram
    grids = [activation_grid(*activation_range(observe(x), m, bits=bits), bits) for m in ("mse", "min_max")]
    errors = [expected_error(counts, grid) for grid in grids]
    assert errors[0] <= errors[1] * (1 + 1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "shifted", "heavy"])
def test_expected_error_is_close_to_the_measured_one(name, bits):
    rng = np.random.default_rng(0)
    x = {
        "normal": rng.normal(size=16000),
        "relu": np.maximum(rng.normal(size=16000), 0),
        "laplace": rng.laplace(size=16000),
        "shifted": rng.normal(-3, 1, size=16000),
        "heavy": rng.standard_t(3, size=16000),
    }[name].astype(np.float32)
    statistics = observe(x)
    full = activation_grid(x.min(), x.max(), bits)
    best = activation_grid(*activation_range(statistics, "mse", bits=bits), bits)
    assert expected_error(statistics.histogram, full) == pytest.approx(true_error(x, full), rel=0.15)
    assert expected_error(statistics.histogram, best) == pytest.approx(true_error(x, best), rel=0.15)
    assert true_error(x, best) <= true_error(x, full) * 1.02


@pytest.mark.parametrize("bits", [4, 8])
@given(x=arrays.filter(np.any))
@settings(max_examples=30)
def test_mse_returns_the_grid_it_evaluated(x, bits):
    low, high = activation_range(observe(x), "mse", bits=bits)
    grid = activation_grid(low, high, bits)
    np.testing.assert_allclose(grid.real_range, (low, high), rtol=1e-6, atol=1e-12)


def test_mse_at_8_bits_keeps_rare_large_values():
    rng = np.random.default_rng(0)
    x = rng.normal(size=16000).astype(np.float32)
    x[::200] *= 12.0
    low, high = activation_range(observe(x), "mse", bits=8)
    assert low < 0.75 * x.min() and high > 0.75 * x.max()


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_a_relu_keeps_zero_as_its_lower_end(method):
    x = np.maximum(np.random.default_rng(0).normal(size=16000), 0)
    assert activation_grid(*activation_range(observe(x), method, bits=8)).real_range[0] == 0.0


def test_percentile_cuts_both_tails():
    low, high = activation_range(observe(np.linspace(-1, 3, 10001)), "percentile", 90.0)
    assert low == pytest.approx(-0.8, abs=0.01) and high == pytest.approx(2.8, abs=0.01)
