import keras
import numpy as np
import pytest
from graph_models import (
    BLOCK_NAMES,
    batch_for,
    inverted_residual_network,
    random_network,
    randomise,
    residual_network,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfptq.core.channel_graph import Change
from tfptq.core.channel_moves import Permutations, Rotations, Scales
from tfptq.graph import canonicalise, channel_groups, check_float_equal, move_channels


def permute_everything(canonical, seed):
    groups = channel_groups(canonical)
    random = np.random.default_rng(seed)
    permutations = {group.index: random.permutation(group.size) for group in groups.groups}
    permuted = move_channels(canonical, Permutations(groups, permutations))
    check_float_equal(canonical, permuted, batch_for(canonical), 5e-6)
    return groups, permutations, permuted


def scale_everything(canonical, seed):
    groups = channel_groups(canonical, Change.SCALE)
    random = np.random.default_rng(seed)
    # ReLU6 follows a scale below 6 only; ``test_channel_headroom`` has those.
    scales = {group.index: 2.0 ** random.integers(-3, 4, group.size) for group in groups.groups if not group.clipped}
    scaled = move_channels(canonical, Scales(groups, scales))
    check_float_equal(canonical, scaled, batch_for(canonical), 5e-6)
    return groups, scales, scaled


def random_rotations(groups, seed):
    random = np.random.default_rng(seed)
    return {group.index: np.linalg.qr(random.normal(size=(group.size,) * 2))[0] for group in groups.groups}


def rotate_everything(canonical, seed):
    groups = channel_groups(canonical, Change.ROTATION)
    rotations = random_rotations(groups, seed)
    rotated = move_channels(canonical, Rotations(groups, rotations))
    check_float_equal(canonical, rotated, batch_for(canonical), 5e-6)
    return groups, rotations, rotated


@settings(max_examples=8)
@given(
    st.lists(st.sampled_from(BLOCK_NAMES), min_size=1, max_size=4), st.sampled_from([2, 4, 6]), st.integers(0, 10**6)
)
def test_permutations_scales_and_rotations_keep_the_function_of_any_network(blocks, width, seed):
    canonical = canonicalise(random_network(blocks, width, seed))
    permute_everything(canonical, seed)
    scale_everything(canonical, seed)
    rotate_everything(canonical, seed)


@pytest.mark.parametrize("block", BLOCK_NAMES)
def test_every_block_alone(block):
    canonical = canonicalise(random_network([block], 4, 1))
    groups, _, _ = permute_everything(canonical, 2)
    assert groups.groups
    scale_everything(canonical, 2)
    rotate_everything(canonical, 2)


@pytest.mark.parametrize("network", [residual_network, inverted_residual_network])
def test_orders_permute_the_canonical_kernels(network):
    canonical = canonicalise(network())
    groups, permutations, permuted = permute_everything(canonical, 0)
    for group in groups.groups:
        assert group.producers and group.consumers
        for side in group.producers:
            kernel, bias = canonical.get_layer(side.layer).get_weights()
            moved, moved_bias = permuted.get_layer(side.layer).get_weights()
            assert np.array_equal(moved_bias, bias[permutations[group.index]])
            order = groups.input_order(side.layer, permutations)
            assert np.array_equal(moved, kernel[..., order, :][..., permutations[group.index]])
    for side in groups.groups[0].consumers:
        order = groups.input_order(side.layer, permutations)
        for offset in side.offsets:
            found = order[offset : offset + groups.groups[0].size]
            assert np.array_equal(found, offset + permutations[0])


def test_the_model_given_is_not_changed():
    canonical = canonicalise(residual_network())
    before = canonical.get_weights()
    permute_everything(canonical, 3)
    assert all(np.array_equal(old, new) for old, new in zip(before, canonical.get_weights(), strict=True))


def test_permutations_undo_each_other():
    canonical = canonicalise(inverted_residual_network())
    groups, permutations, permuted = permute_everything(canonical, 4)
    inverse = {index: np.argsort(permutation) for index, permutation in permutations.items()}
    back = move_channels(permuted, Permutations(groups, inverse))
    assert all(np.array_equal(a, b) for a, b in zip(canonical.get_weights(), back.get_weights(), strict=True))


def test_dense_and_one_dimensional_layers():
    inputs = keras.Input((8, 3))
    x = layers.Conv1D(4, 3, activation="relu")(inputs)
    x = layers.DepthwiseConv1D(3)(layers.MaxPooling1D(2)(x))
    x = layers.Flatten()(layers.Conv1DTranspose(5, 2)(x))
    x = layers.PReLU()(layers.Dense(6)(x))
    canonical = canonicalise(randomise(keras.Model(inputs, layers.Dense(2)(x))))
    assert len(permute_everything(canonical, 5)[0].groups) == 3
    assert len(scale_everything(canonical, 5)[0].groups) == 4


def test_bad_permutations_and_scales_are_refused():
    canonical = canonicalise(residual_network())
    groups = channel_groups(canonical)
    with pytest.raises(ValueError, match="no channel group 99"):
        move_channels(canonical, Permutations(groups, {99: np.arange(3)}))
    with pytest.raises(ValueError, match="group 0 does not hold each of"):
        move_channels(canonical, Permutations(groups, {0: np.zeros(groups.groups[0].size, int)}))
    scalable = channel_groups(canonical, Change.SCALE)
    for factors in (np.zeros(scalable.groups[0].size), np.ones(1), np.full(scalable.groups[0].size, np.nan)):
        with pytest.raises(ValueError, match="group 0 are not"):
            move_channels(canonical, Scales(scalable, {0: factors}))


def linear_bottlenecks():
    """Convolutions of each kind, and dense layers, with nothing but linear layers between them."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    y = layers.Conv2D(4, 1, name="branch")(layers.Conv2D(9, 1, activation="relu", name="expand")(x))
    x = layers.AveragePooling2D(2)(layers.ZeroPadding2D(1)(layers.Subtract()([x, y])))
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(layers.Concatenate()([x, -x]))
    x = layers.UpSampling2D(2)(x)
    x = layers.Dense(6, name="code")(layers.Flatten()(layers.Conv2D(3, 3, strides=4, name="down")(x)))
    return randomise(keras.Model(inputs, layers.Dense(2, name="scores")(x)))


def test_rotations_mix_rows_and_turn_columns_back():
    canonical = canonicalise(linear_bottlenecks())
    groups, rotations, rotated = rotate_everything(canonical, 3)
    ends = [[{side.layer for side in sides} for sides in (each.producers, each.consumers)] for each in groups.groups]
    assert ends == [
        [{"stem", "branch"}, {"expand", "up"}],
        [{"up"}, {"down"}],
        [{"down"}, {"code"}],
        [{"code"}, {"scores"}],
    ]
    for name, axis in (("stem", 0), ("up", 1), ("code", 3)):
        kernel, bias = canonical.get_layer(name).get_weights()
        mixed, mixed_bias = rotated.get_layer(name).get_weights()
        np.testing.assert_allclose(mixed_bias, rotations[axis] @ bias, atol=1e-5)
        assert not np.allclose(mixed, kernel)
    back = move_channels(rotated, Rotations(groups, {index: rotation.T for index, rotation in rotations.items()}))
    for before, after in zip(canonical.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_bad_rotations_are_refused():
    canonical = canonicalise(linear_bottlenecks())
    groups = channel_groups(canonical, Change.ROTATION)
    with pytest.raises(ValueError, match="no channel group 9"):
        move_channels(canonical, Rotations(groups, {9: np.eye(4)}))
    for matrix in (np.eye(3), 2.0 * np.eye(4), np.full((4, 4), np.nan), np.eye(4)[:3]):
        with pytest.raises(ValueError, match="group 0 is no orthogonal matrix of 4 x 4"):
            move_channels(canonical, Rotations(groups, {0: matrix}))
