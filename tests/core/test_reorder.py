from itertools import permutations as all_permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.blocks import block_maxima
from tfptq.core.reorder import AxisSegment, BlockedLayer, axis_order, layer_noise, permuted_maxima, reorder


def magnitudes(rng, outputs, inputs):
    return np.abs(rng.normal(size=(outputs, inputs))) * np.exp(rng.normal(size=(outputs, 1)))


def network(seed, m=3, n=4):
    """Two layers in a row, a depthwise layer between them, a residual layer with one group on both axes, a concat
    and a flattened reader.
    """
    rng = np.random.default_rng(seed)
    wide, thin = (AxisSegment("wide"),), (AxisSegment("thin"),)
    return [
        BlockedLayer(magnitudes(rng, 10, 7), (m, n), wide, thin),
        BlockedLayer(magnitudes(rng, 10, 1), (m, 1), wide),
        BlockedLayer(magnitudes(rng, 7, 10), (m, n), thin, wide, weight=0.3),
        BlockedLayer(magnitudes(rng, 7, 7), (m, n), thin, thin),
        BlockedLayer(magnitudes(rng, 4, 17), (m, n), (), (AxisSegment("wide"), AxisSegment("thin", 10))),
        BlockedLayer(magnitudes(rng, 4, 21), (m, n), (), tuple(AxisSegment("thin", start) for start in (0, 7, 14))),
    ], {"wide": 10, "thin": 7}


@given(st.integers(0, 999), st.integers(1, 8), st.integers(1, 8), st.sampled_from([1e-9, 1.0, 1e9]))
@settings(max_examples=30)
def test_never_worse_and_honest(seed, m, n, scale):
    layers, sizes = network(seed, m, n)
    layers = [BlockedLayer(x.maxima * scale, x.block_shape, x.rows, x.columns, x.weight) for x in layers]
    result = reorder(layers, sizes)
    for group, size in sizes.items():
        np.testing.assert_array_equal(np.sort(result.permutations[group]), np.arange(size))
    assert result.after.sum() <= result.before.sum()
    for layer, before, after in zip(layers, result.before, result.after, strict=True):
        for maxima, noise in ((layer.maxima, before), (permuted_maxima(layer, result.permutations), after)):
            blocks = block_maxima(maxima[:, :, None], layer.block_shape)
            expanded = np.repeat(np.repeat(blocks, m, axis=0), layer.block_shape[1], axis=1)
            expanded = expanded[: maxima.shape[0], : maxima.shape[1]]
            assert layer.weight * (expanded**2).sum() == pytest.approx(noise)


@pytest.mark.parametrize("seed", range(5))
def test_comes_close_to_the_best_order(seed):
    rng = np.random.default_rng(seed)
    layers = [
        BlockedLayer(magnitudes(rng, 6, 4), (2, 4), (AxisSegment("a"),)),
        BlockedLayer(magnitudes(rng, 4, 6), (1, 3), (), (AxisSegment("a"),)),
    ]
    best = min(
        sum(layer_noise(layer, {"a": np.array(order)}) for layer in layers) for order in all_permutations(range(6))
    )
    result = reorder(layers, {"a": 6})
    assert result.after.sum() <= 1.1 * best


def test_finds_two_interleaved_kinds_of_channels():
    maxima = np.where(np.arange(32)[:, None] % 2, 1.0, 0.1) * np.ones((32, 8))
    result = reorder([BlockedLayer(maxima, (16, 8), (AxisSegment("a"),))], {"a": 32})
    assert result.after[0] == pytest.approx(0.505 * result.before[0])
    assert set(result.permutations["a"][:16] % 2) in ({0}, {1})


def test_groups_of_different_patterns_need_swaps_not_sorts():
    # Channels of equal size whose large inputs lie in different blocks: no sort by size can tell them apart.
    pattern = np.kron(np.eye(4), np.ones((8, 8))) + 0.01
    order = np.random.default_rng(0).permutation(32)
    result = reorder([BlockedLayer(pattern[order], (8, 8), (AxisSegment("a"),))], {"a": 32})
    assert result.after[0] < 0.27 * (pattern.size * 1.01**2)


@pytest.mark.parametrize("m", [1, 6])
def test_no_order_matters_for_channel_and_tensor_scales(m):
    layer = BlockedLayer(magnitudes(np.random.default_rng(0), 6, 5), (m, 5), (AxisSegment("a"),))
    result = reorder([layer], {"a": 6})
    np.testing.assert_array_equal(result.permutations["a"], np.arange(6))
    assert result.before == result.after


def test_all_zero_weights():
    result = reorder([BlockedLayer(np.zeros((6, 4)), (2, 2), (AxisSegment("a"),))], {"a": 6})
    np.testing.assert_array_equal(result.permutations["a"], np.arange(6))


def test_deterministic():
    first, second = (reorder(*network(3)).permutations for _ in range(2))
    for group in first:
        np.testing.assert_array_equal(first[group], second[group])


def test_segments_place_a_group_on_an_axis():
    order = axis_order((AxisSegment("a", 1), AxisSegment("a", 5)), 9, {"a": np.array([2, 0, 1])})
    np.testing.assert_array_equal(order, [0, 3, 1, 2, 4, 7, 5, 6, 8])


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="unknown channel group 'b'"):
        reorder([BlockedLayer(np.ones((2, 2)), (1, 1), (AxisSegment("b"),))], {"a": 2})
    with pytest.raises(ValueError, match="ends at 6 on the columns"):
        reorder([BlockedLayer(np.ones((2, 4)), (1, 1), (), (AxisSegment("a", 4),))], {"a": 2})
