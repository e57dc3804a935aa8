import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import WEIGHT_BITS
from tfptq.core.blocks import quantize_nearest
from tfptq.core.granularity import PerChannel, PerTensor
from tfptq.core.weight_scales import fit_scales, max_abs_scales, mse_scales


def random_view(seed, outputs=6, inputs=5, taps=3, magnitude=1.0):
    rng = np.random.default_rng(seed)
    return (magnitude * rng.standard_t(4, (outputs, inputs, taps)) * rng.uniform(0.05, 1, (outputs, 1, 1))).astype("f4")


def block_errors(view, scales, bits):
    error = quantize_nearest(view, scales, bits).dequantize().astype(np.float64) - view
    m, n = scales.block_shape
    return np.array(
        [
            [np.sum(error[row : row + m, column : column + n] ** 2) for column in range(0, error.shape[1], n)]
            for row in range(0, error.shape[0], m)
        ]
    )


@given(
    st.integers(0, 999),
    st.integers(1, 7),
    st.integers(1, 6),
    st.sampled_from(WEIGHT_BITS),
    st.sampled_from([1e-12, 1.0, 1e15]),
)
@settings(max_examples=40)
def test_mse_is_never_worse_than_max_abs_in_any_block(seed, m, n, bits, magnitude):
    view = random_view(seed, magnitude=magnitude)
    start = block_errors(view, max_abs_scales(view, (m, n), bits), bits)
    found = block_errors(view, mse_scales(view, (m, n), bits), bits)
    assert (found <= start * (1 + 1e-4)).all()


def test_mse_clips_an_outlier_at_low_bits():
    view = np.random.default_rng(0).normal(size=(1, 500, 1))
    view[0, 0, 0] = 8.0
    assert mse_scales(view, (1, 500), 3).values()[0, 0] < 0.7 * max_abs_scales(view, (1, 500), 3).values()[0, 0]


@given(st.integers(0, 99), st.sampled_from(WEIGHT_BITS), st.integers(1, 7), st.integers(1, 6))
def test_max_abs_clips_nothing(seed, bits, m, n):
    view = random_view(seed)
    weight = quantize_nearest(view, max_abs_scales(view, (m, n), bits), bits)
    assert (np.abs(weight.dequantize() - view) <= 0.5001 * weight.scale_per_weight).all()


def test_dead_channels_take_the_largest_scale():
    view = random_view(0)
    view[2] = 0.0
    scales = max_abs_scales(view, (1, 5), 8).values()[:, 0]
    assert scales[2] == scales.max()
    assert (mse_scales(view, (1, 5), 8).values() > 0).all()


@pytest.mark.parametrize("scaler", ["float", "shift"])
@pytest.mark.parametrize("by_error", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-38, 3e38])
def test_constant_weights(scaler, by_error, value):
    view = np.full((3, 2, 1), value, np.float32)
    scales = fit_scales(view, PerTensor(), 8, scaler, by_error=by_error)
    assert np.isfinite(scales.values()).all() and (scales.values() > 0).all()
    np.testing.assert_allclose(quantize_nearest(view, scales, 8).dequantize(), view, rtol=1e-2, atol=1e-18)


def test_fit_scales_picks_by_granularity_and_kind():
    view = random_view(1)
    assert fit_scales(view, PerTensor(), 8).count == 1
    assert fit_scales(view, PerChannel(), 8).factors.shape == (6, 1)
    assert fit_scales(view, PerTensor(), 8, "shift").kind == "shift"
    searched = fit_scales(view, PerChannel(), 3, by_error=True)
    np.testing.assert_array_equal(searched.values(), mse_scales(view, (1, 5), 3).values())


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        fit_scales(np.full((1, 1, 1), np.nan), PerTensor(), 8)


@settings(max_examples=20)
@given(st.integers(0, 2**16), st.sampled_from([2, 3, 4]))
def test_a_search_for_symmetric_codes_is_never_worse_there_than_max_abs(seed, bits):
    view = np.random.default_rng(seed).normal(size=(6, 12, 1)).astype(np.float32)
    limit = 2 ** (bits - 1) - 1

    def errors(scales):
        scale = scales.expand(6, 12)
        return np.square(np.clip(np.rint(view / scale), -limit, limit) * scale - view).sum(axis=(1, 2))

    found = errors(mse_scales(view, (1, 12), bits, symmetric=True))
    assert (found <= errors(max_abs_scales(view, (1, 12), bits)) * (1 + 1e-5)).all()
    assert found.sum() <= errors(mse_scales(view, (1, 12), bits)).sum() * (1 + 1e-5)
