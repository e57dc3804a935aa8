import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.blocks import (
    BlockScales,
    QuantizedWeight,
    WeightView,
    block_maxima,
    float_scales,
    quantize_nearest,
)

sizes = st.integers(1, 7)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (WeightView((3, 2, 5, 7), (3,), (2,), (0, 1)), (7, 5, 6)),  # Conv2D
        (WeightView((3, 3, 4, 2), (2, 3), (), (0, 1)), (8, 1, 9)),  # DepthwiseConv2D
        (WeightView((3, 2, 7, 5), (2,), (3,), (0, 1)), (7, 5, 6)),  # Conv2DTranspose
        (WeightView((6, 2, 3), (1, 2), (0,)), (6, 6, 1)),  # EinsumDense
    ],
)
def test_views_go_there_and_back(view, expected):
    kernel = np.arange(np.prod(view.shape), dtype=np.float32).reshape(view.shape)
    assert view.view_shape == expected == view.to_view(kernel).shape
    np.testing.assert_array_equal(view.from_view(view.to_view(kernel)), kernel)


def test_view_of_a_convolution_has_taps_last():
    kernel = np.random.default_rng(0).normal(size=(3, 2, 5, 7))
    assert WeightView((3, 2, 5, 7), (3,), (2,), (0, 1)).to_view(kernel)[6, 4, 2 * 2 + 1] == kernel[2, 1, 4, 6]


def test_axes_must_cover_the_kernel():
    with pytest.raises(ValueError, match="do not cover"):
        WeightView((3, 4), (0,), ())


@given(sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_block_maxima_and_expand_agree_with_loops(outputs, inputs, taps, m, n, seed):
    view = np.random.default_rng(seed).normal(size=(outputs, inputs, taps)).astype(np.float32)
    maxima = block_maxima(view, (m, n))
    expanded = float_scales(maxima, (m, n)).expand(outputs, inputs)
    assert maxima.shape == (-(-outputs // m), -(-inputs // n)) and expanded.shape == (outputs, inputs, 1)
    for o in range(outputs):
        for i in range(inputs):
            v, h = o // m, i // n
            assert expanded[o, i, 0] == np.abs(view[v * m : (v + 1) * m, h * n : (h + 1) * n]).max()


def test_kinds_of_scales():
    factors = np.array([[1, 3], [2, 16]], np.int8)
    base = np.array([0.5, 2.0], np.float32)
    np.testing.assert_array_equal(BlockScales("integer", base, factors, (1, 1)).values(), [[0.5, 1.5], [4, 32]])
    shifted = BlockScales("shift", base[:1], -factors, (1, 1))
    np.testing.assert_array_equal(shifted.values(), 0.5 * 2.0 ** -factors.astype(float))
    assert shifted.count == 4
    with pytest.raises(ValueError, match="kind of block scales is 'double'"):
        BlockScales("double", base, factors, (1, 1))
    with pytest.raises(ValueError, match="does not fit"):
        BlockScales("integer", np.ones(3, np.float32), factors, (1, 1))


@pytest.mark.parametrize(
    ("kind", "base", "shape", "block_shape", "granularity"),
    [
        ("float", 1, (1, 1), (4, 6), "tensor"),
        ("shift", 1, (1, 1), (4, 6), "tensor"),  # a block as large as the layer
        ("shift", 1, (4, 1), (1, 6), "tensor"),  # WES
        ("float", 1, (4, 1), (1, 6), "channel"),
        ("integer", 4, (4, 1), (1, 6), "channel"),
        ("float", 1, (2, 1), (2, 6), "block"),
        ("shift", 2, (2, 3), (2, 2), "block"),
        ("integer", 1, (1, 3), (4, 2), "block"),
    ],
)
def test_granularity_tells_which_weights_share_a_scale(kind, base, shape, block_shape, granularity):
    scales = BlockScales(kind, np.ones(base, np.float32), np.ones(shape, np.int8), block_shape)
    assert scales.granularity == granularity


@given(st.sampled_from(["integer", "shift"]), sizes, sizes, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_int8_form_is_exact(kind, outputs, inputs, m, n, seed):
    rng = np.random.default_rng(seed)
    V, H = -(-outputs // m), -(-inputs // n)
    low, high = (1, 16) if kind == "integer" else (-2, 2)
    factors = rng.integers(low, high, (V, H)).astype(np.int8)
    scales = BlockScales(kind, rng.uniform(0.1, 1.0, V).astype(np.float32), factors, (m, n))
    weight = quantize_nearest(rng.normal(size=(outputs, inputs, 2)) * 5, scales, 4)
    codes, scale = weight.int8_form()
    assert codes.dtype == np.int8
    np.testing.assert_allclose(codes * scale[:, None, None], weight.dequantize(), rtol=1e-6)


def test_int8_form_refuses_what_is_not_exact():
    codes = np.full((1, 2, 1), 127, np.int8)
    one = np.ones(1, np.float32)
    assert QuantizedWeight(codes, float_scales(np.array([[1.0, 1.3]]), (1, 1)), 8).int8_form() is None
    assert QuantizedWeight(codes, BlockScales("integer", one, np.int8([[1, 2]]), (1, 1)), 8).int8_form() is None
    assert QuantizedWeight(codes, float_scales(np.array([[1.3]]), (1, 2)), 8).int8_form() is not None
