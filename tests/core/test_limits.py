"""The limits of ``PerBlock`` are ``PerTensor`` (one block) and ``PerChannel`` (m = 1, n = I)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import SCALE_KINDS, WEIGHT_BITS, weight_code_limit
from tfptq.core.bias_correction import limit_scales_for_bias
from tfptq.core.blocks import quantize_nearest
from tfptq.core.granularity import PerBlock, PerChannel, PerTensor
from tfptq.core.scale_search import search_scales
from tfptq.core.weight_scales import fit_scales

HUGE = 2**20


def random_view(seed, outputs, inputs, taps):
    rng = np.random.default_rng(seed)
    magnitudes = rng.uniform(0.05, 1.0, (outputs, inputs, 1))
    return (rng.standard_t(4, (outputs, inputs, taps)) * magnitudes).astype(np.float32)


def limits(outputs, inputs):
    """Pairs of a ``PerBlock`` and the granularity that it must equal; blocks may be larger than the layer."""
    return [
        (PerBlock(outputs, inputs), PerTensor()),
        (PerBlock(HUGE, HUGE), PerTensor()),
        (PerBlock(1, inputs), PerChannel()),
        (PerBlock(1, HUGE), PerChannel()),
    ]


def assert_same_weight(one, other):
    assert one.scales.block_shape == other.scales.block_shape
    np.testing.assert_array_equal(one.scales.values(), other.scales.values())
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.dequantize(), other.dequantize())
    for ours, theirs in zip(one.int8_form(), other.int8_form(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4)),
    st.sampled_from(WEIGHT_BITS),
    st.booleans(),
)
@settings(max_examples=25)
def test_limits_of_fitted_scales(seed, shape, bits, by_error):
    view = random_view(seed, *shape)
    for block, limit in limits(*shape[:2]):
        expected = fit_scales(view, limit, bits, by_error=by_error)
        for kind in SCALE_KINDS:
            found = fit_scales(view, block, bits, kind, by_error=by_error)
            assert found.kind == kind
            assert_same_weight(quantize_nearest(view, found, bits), quantize_nearest(view, expected, bits))


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_limits_of_searched_scales(kind):
    view = random_view(0, 6, 5, 2)
    samples = np.random.default_rng(1).normal(size=(100, 10)) @ np.random.default_rng(2).normal(size=(10, 10))
    gram = samples.T @ samples / len(samples)
    for block, limit in limits(6, 5):
        expected = search_scales(view, gram, limit.block_shape(6, 5), 4, "float")
        found = search_scales(view, gram, block.block_shape(6, 5), 4, kind)
        assert_same_weight(quantize_nearest(view, found, 4), quantize_nearest(view, expected, 4))


@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 3)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from(WEIGHT_BITS),
)
@settings(max_examples=40)
def test_every_kind_between_the_limits(seed, shape, block, bits):
    """Ragged blocks included: max-abs clips nothing, integers and shifts have an exact int8 form."""
    view = random_view(seed, *shape)
    for kind in SCALE_KINDS:
        scales = fit_scales(view, PerBlock(*block), bits, kind)
        rows, columns = -(-shape[0] // block[0]), -(-shape[1] // block[1])
        assert scales.factors.shape == (rows, columns) and scales.kind == kind
        weight = quantize_nearest(view, scales, bits)
        step = weight.scale_per_weight
        assert (np.abs(weight.dequantize() - view) <= step * 0.5001).all()
        assert np.abs(weight.codes).max() <= weight_code_limit(bits)
        if kind != "float":
            codes, rows = weight.int8_form()
            # (q r) s and q (r s) may differ by one float32 rounding
            np.testing.assert_allclose(codes * rows[:, None, None], weight.dequantize(), rtol=2e-7)


@given(st.integers(0, 999), st.integers(2, 6), st.sampled_from(["integer", "shift"]), st.integers(2, 4))
@settings(max_examples=20)
def test_searched_multiples_are_never_worse_than_covering_ones(seed, columns, kind, bits):
    view = random_view(seed, 6, 2 * columns, 2)

    def row_errors(by_error):
        scales = fit_scales(view, PerBlock(2, 2), bits, kind, by_error=by_error)
        error = quantize_nearest(view, scales, bits).dequantize().astype(np.float64) - view
        return np.square(error).reshape(3, -1).sum(axis=1)

    assert (row_errors(True) <= row_errors(False) * (1 + 1e-4)).all()


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_bias_limit_keeps_the_blocks_of_a_layer_with_one_output(kind):
    view = random_view(3, 1, 8, 1)
    scales = fit_scales(view, PerBlock(1, 2), 4, kind)
    limited = limit_scales_for_bias(scales, np.array([1e6]), 1e-6)
    assert limited.factors.shape == scales.factors.shape == (1, 4)
    if kind != "float":
        assert 1e6 / (1e-6 * quantize_nearest(view, limited, 4).int8_form()[1][0]) <= 2**31 - 1
