"""A kernel and its uses: whoever reads them need not know that the converter multiplied rows by factors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.affine import weight_code_limit
from tfptq.core.blocks import QuantizedWeight, WeightView, quantize_nearest
from tfptq.core.weight_scales import max_abs_scales
from tfptq.core.windows import Window
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse

OUTPUTS, INPUTS, TAPS = SHAPE = (4, 3, 2)
VIEW = WeightView((OUTPUTS, TAPS, 1, INPUTS), (0,), (3,), (1, 2))
WEIGHTS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
MAGNITUDES = st.floats(2.0**-10, 2.0**10, width=32)
ROWS = st.lists(MAGNITUDES, min_size=OUTPUTS, max_size=OUTPUTS).map(lambda rows: np.asarray(rows, np.float32))
SIGNED_ROWS = st.tuples(ROWS, st.lists(st.sampled_from([-1.0, 1.0]), min_size=OUTPUTS, max_size=OUTPUTS)).map(
    lambda pair: pair[0] * np.asarray(pair[1], np.float32)
)


def use_of(row_factors=None, bias=None):
    return KernelUse(0, 1, 2, 3, VIEW, Window((TAPS, 1)), bias, row_factors)


def codes_of(values, bits=8, block=(1, INPUTS)):
    return quantize_nearest(values, max_abs_scales(values, block, bits), bits)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max(initial=0.0))


@pytest.mark.parametrize(
    ("id", "owner", "label"),
    [
        (KernelId("conv", "kernel"), "conv", "conv"),
        (KernelId("attention", "query/kernel"), "attention", "attention/query/kernel"),
        (KernelId(None, "net/matmul"), "net/matmul", "net/matmul"),
        (KernelId(None, "kernel"), "kernel", "kernel"),
    ],
)
def test_names_of_kernels(id, owner, label):
    assert (id.owner, id.label) == (owner, label)


def test_ids_are_told_apart_by_layer_and_name():
    ids = {KernelId("a", "kernel"), KernelId("a", "kernel"), KernelId("b", "kernel"), KernelId(None, "kernel")}
    assert len(ids) == 3


@given(st.none() | SIGNED_ROWS)
def test_the_operator_with_stored_values_computes_what_kernel_outputs_take_back(factors):
    """``kernel_outputs`` of what a use computes is what the kernel itself would give, its bias included."""
    x = np.random.default_rng(1).normal(size=(5, INPUTS * TAPS))
    use = use_of(factors, np.asarray([1.0, -2.0, 0.5, 3.0], np.float32))
    computed = x @ use.stored_values(WEIGHTS).reshape(OUTPUTS, -1).T.astype(np.float64) + use.bias
    own = x @ WEIGHTS.reshape(OUTPUTS, -1).T.astype(np.float64) + use.kernel_bias
    np.testing.assert_allclose(use.kernel_outputs(computed), own, rtol=1e-4, atol=1e-4)


@given(st.none() | SIGNED_ROWS, st.sampled_from([(1, INPUTS), (2, 1), (OUTPUTS, INPUTS)]))
def test_stored_codes_are_the_stored_values(factors, block):
    """It is the same to dequantize and to multiply, in either order; so are values of which codes are made."""
    use, weight = use_of(factors), codes_of(WEIGHTS, block=block)
    stored = use.stored_weight(weight)
    close(stored.dequantize(), use.stored_values(weight.dequantize()))
    np.testing.assert_array_equal(np.abs(stored.codes), np.abs(weight.codes))
    assert stored.bits == weight.bits


@given(SIGNED_ROWS)
def test_magnitudes_are_what_scales_are_multiplied_by(factors):
    use, weight = use_of(factors), codes_of(WEIGHTS)
    rows = use.stored_weight(weight).scale_per_weight[:, 0, 0]
    close(rows, weight.scale_per_weight[:, 0, 0] * use.magnitudes)
    assert (use.magnitudes > 0.0).all()


@given(st.none() | SIGNED_ROWS)
def test_signs_flip_where_a_factor_is_negative(factors):
    use, weight = use_of(factors), codes_of(WEIGHTS)
    flipped = np.sign(use.stored_weight(weight).codes) != np.sign(weight.codes)
    assert use.flips_signs == flipped.any()
    for row in range(OUTPUTS):
        assert flipped[row].any() == (factors is not None and factors[row] < 0.0)


@given(st.none() | SIGNED_ROWS, st.none() | ROWS, ROWS)
def test_a_shift_moves_the_bias_of_the_kernel_by_just_that(factors, bias, shift):
    use = use_of(factors, bias)
    moved = use_of(factors, use.shifted_bias(shift))
    largest = max(np.abs(use.kernel_bias).max(), np.abs(shift).max())
    np.testing.assert_allclose(moved.kernel_bias, use.kernel_bias + shift, rtol=1e-4, atol=1e-3 * largest)
    assert moved.bias.dtype == np.float32


@given(st.none() | SIGNED_ROWS, ROWS)
def test_no_shift_leaves_the_bias_as_it_is(factors, bias):
    np.testing.assert_array_equal(use_of(factors, bias).shifted_bias(np.zeros(OUTPUTS, np.float32)), bias)


@pytest.mark.parametrize("factors", [None, np.asarray([2.0, -0.5, 1.0, 1.0], np.float32)])
def test_without_a_bias(factors):
    use, shift = use_of(factors), np.asarray([1.0, 2.0, 3.0, 4.0], np.float32)
    np.testing.assert_array_equal(use.kernel_bias, np.zeros(OUTPUTS, np.float32))
    np.testing.assert_array_equal(use.shifted_bias(shift), shift if factors is None else shift * factors)


def test_without_factors_nothing_is_copied():
    use, weight = use_of(), codes_of(WEIGHTS)
    assert use.stored_values(WEIGHTS) is WEIGHTS and use.stored_weight(weight) is weight
    np.testing.assert_array_equal(use.magnitudes, [1.0])
    assert not use.flips_signs


def test_a_kernel_has_the_shape_of_its_view_and_the_signs_of_all_uses():
    plain, doubled = use_of(), use_of(np.full(OUTPUTS, 2.0, np.float32))
    flipping = use_of(np.asarray([1.0, 1.0, -1.0, 1.0], np.float32))
    assert Kernel(KernelId("conv", "kernel"), WEIGHTS, (plain,)).shape == SHAPE
    assert not Kernel(KernelId("conv", "kernel"), WEIGHTS, (plain, doubled)).flips_signs
    assert Kernel(KernelId("conv", "kernel"), WEIGHTS, (doubled, flipping)).flips_signs


@given(st.sampled_from([2, 3, 4, 8]), SIGNED_ROWS)
def test_mirrored_codes_fit_their_bits_in_every_use(bits, factors):
    limit = weight_code_limit(bits)
    weight = codes_of(WEIGHTS, bits)
    weight = QuantizedWeight(np.clip(weight.codes, -limit, limit), weight.scales, bits)
    stored = use_of(factors).stored_weight(weight)
    assert -limit <= stored.codes.min() and stored.codes.max() <= limit
