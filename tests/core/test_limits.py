"""The limits of ``PerBlock`` are ``PerTensor`` (one block) and ``PerChannel`` (m = 1, n = I)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.config import PerBlock, PerChannel, PerTensor, QuantizationConfig
from tfptq.core.affine import SCALE_KINDS, WEIGHT_BITS, weight_code_limit
from tfptq.core.bias_correction import limit_scales_for_bias
from tfptq.core.block_errors import OBJECTIVES
from tfptq.core.blocks import block_shape, quantize_nearest
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


def test_block_shapes_are_cut_to_the_layer():
    assert block_shape(PerBlock(4, 3), 10, 10) == (4, 3)
    assert block_shape(PerBlock(4, 3), 2, 1) == (2, 1)  # depthwise layers have one input channel


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_balanced_blocks_have_no_more_scales_than_channels(outputs, inputs, columns):
    m, n = block_shape(PerBlock(input_blocks=columns), outputs, inputs)
    assert 1 <= m <= outputs and 1 <= n <= inputs
    count = -(-outputs // m) * -(-inputs // n)
    assert count <= outputs
    assert -(-inputs // n) <= columns
    if m > 1:  # a row less in each block would cost more scales
        assert -(-outputs // (m - 1)) * -(-inputs // n) > outputs


def test_balanced_blocks_of_common_layers():
    balanced = PerBlock(input_blocks=4)
    assert block_shape(balanced, 64, 64) == (4, 16)
    assert block_shape(balanced, 32, 1) == block_shape(PerChannel(), 32, 1)  # depthwise
    assert block_shape(balanced, 24, 144) == (4, 36)
    assert block_shape(balanced, 2, 9) == (2, 5)
    assert block_shape(PerBlock(input_blocks=1), 10, 7) == block_shape(PerChannel(), 10, 7)


@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4)),
    st.sampled_from(WEIGHT_BITS),
    st.sampled_from(["max_abs", "mse"]),
)
@settings(max_examples=25, deadline=None)
def test_limits_of_fitted_scales(seed, shape, bits, weight_scale):
    view = random_view(seed, *shape)
    for block, limit in limits(*shape[:2]):
        expected = fit_scales(view, QuantizationConfig(limit, weight_bits=bits, weight_scale=weight_scale))
        for kind in SCALE_KINDS:
            found = fit_scales(view, QuantizationConfig(block, kind, bits, weight_scale=weight_scale))
            assert found.kind == kind
            assert_same_weight(quantize_nearest(view, found, bits), quantize_nearest(view, expected, bits))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_limits_of_searched_scales(kind, objective):
    view = random_view(0, 6, 5, 2)
    samples = np.random.default_rng(1).normal(size=(100, 10)) @ np.random.default_rng(2).normal(size=(10, 10))
    gram = samples.T @ samples / len(samples)
    for block, limit in limits(6, 5):
        expected = search_scales(view, gram, block_shape(limit, 6, 5), 4, "float", objective=objective)
        found = search_scales(view, gram, block_shape(block, 6, 5), 4, kind, objective=objective)
        assert_same_weight(quantize_nearest(view, found, 4), quantize_nearest(view, expected, 4))


@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 3)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from(WEIGHT_BITS),
)
@settings(max_examples=40, deadline=None)
def test_every_kind_between_the_limits(seed, shape, block, bits):
    """Ragged blocks included: max-abs clips nothing, integers and shifts have an exact int8 form."""
    view = random_view(seed, *shape)
    for kind in SCALE_KINDS:
        config = QuantizationConfig(PerBlock(*block), kind, bits)
        scales = fit_scales(view, config)
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
@settings(max_examples=20, deadline=None)
def test_searched_multiples_are_never_worse_than_covering_ones(seed, columns, kind, bits):
    view = random_view(seed, 6, 2 * columns, 2)

    def row_errors(weight_scale):
        config = QuantizationConfig(PerBlock(2, 2), kind, bits, weight_scale=weight_scale)
        error = quantize_nearest(view, fit_scales(view, config), bits).dequantize().astype(np.float64) - view
        return np.square(error).reshape(3, -1).sum(axis=1)

    assert (row_errors("mse") <= row_errors("max_abs") * (1 + 1e-4)).all()


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_bias_limit_keeps_the_blocks_of_a_layer_with_one_output(kind):
    view = random_view(3, 1, 8, 1)
    scales = fit_scales(view, QuantizationConfig(PerBlock(1, 2), kind, 4))
    limited = limit_scales_for_bias(scales, np.array([1e6]), 1e-6)
    assert limited.factors.shape == scales.factors.shape == (1, 4)
    if kind != "float":
        assert 1e6 / (1e-6 * quantize_nearest(view, limited, 4).int8_form()[1][0]) <= 2**31 - 1
