"""Headroom for scaling: what the data says of ranges and of ReLU6."""

import keras
import numpy as np
import pytest
from graph_models import inverted_residual_network, residual_network
from keras import layers

from tfptq.core.channel_graph import Change
from tfptq.core.channel_groups import find_groups
from tfptq.core.channel_headroom import channel_headroom, limiting_tensors
from tfptq.core.channel_moves import Scales
from tfptq.graph import canonicalise, check_float_equal, move_channels
from tfptq.graph.channel_steps import channel_graph
from tfptq.graph.observe_channels import ChannelObserver
from tfptq.graph.read_graph import input_names, read_graph


def samples_for(model, count=24, seed=0):
    random = np.random.default_rng(seed)
    shapes = dict(zip(input_names(model), [tensor.shape[1:] for tensor in model.inputs], strict=True))
    return {name: random.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}


def headroom_of(model, batches):
    read = read_graph(model)
    graph = channel_graph(read, Change.SCALE)
    groups = find_groups(graph)
    observer = ChannelObserver(read, limiting_tensors(graph, groups))
    return groups, channel_headroom(graph, groups, observer.observe(batches))


def line(biases, activation):
    """Channels that are constant: the biases of a layer whose kernel is zero."""
    inputs = keras.Input((2, 2, 1), name="image")
    first = layers.Conv2D(len(biases), 1, activation=activation, name="first")
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(first(inputs)))
    first.set_weights([np.zeros((1, 1, 1, len(biases)), np.float32), np.array(biases, np.float32)])
    return model


def test_headroom_is_up_to_the_largest_of_the_tensor():
    _, headrooms = headroom_of(line([4.0, -2.0, 0.0, 0.5], None), [{"image": np.zeros((1, 2, 2, 1), np.float32)}])
    np.testing.assert_allclose(headrooms[0].max_factor, [1.0, 2.0, np.inf, 8.0])
    assert not headrooms[0].fixed.any()


def test_channels_at_the_clip_level_are_fixed_and_no_other():
    batches = [{"image": np.zeros((1, 2, 2, 1), np.float32)}]
    _, headrooms = headroom_of(line([9.0, 6.0, 3.0, -2.0], "relu6"), batches)
    np.testing.assert_allclose(headrooms[0].max_factor, [1.0, 1.0, 2.0, np.inf])
    assert headrooms[0].fixed.tolist() == [True, True, False, False]
    _, headrooms = headroom_of(line([9.0, 6.0, 3.0, -2.0], "relu"), batches)
    assert not headrooms[0].fixed.any()


def test_the_largest_of_all_batches_counts():
    model = canonicalise(residual_network())
    batch = samples_for(model)
    halves = [{name: array[part] for name, array in batch.items()} for part in (slice(5), slice(5, None))]
    _, whole = headroom_of(model, [batch])
    _, parts = headroom_of(model, halves)
    for index, headroom in whole.items():
        np.testing.assert_allclose(parts[index].max_factor, headroom.max_factor, rtol=1e-5)


def test_a_concatenation_is_one_tensor():
    inputs = keras.Input((2, 2, 1), name="image")
    small, large = (layers.Conv2D(2, 1, name=name) for name in ("small", "large"))
    joined = layers.Concatenate()([small(inputs), large(inputs)])
    model = keras.Model(inputs, layers.Conv2D(2, 1)(joined))
    small.set_weights([np.zeros((1, 1, 1, 2), np.float32), np.array([1.0, 2.0], np.float32)])
    large.set_weights([np.zeros((1, 1, 1, 2), np.float32), np.array([4.0, 8.0], np.float32)])
    _, headrooms = headroom_of(model, [{"image": np.zeros((1, 2, 2, 1), np.float32)}])
    assert sorted(tuple(headroom.max_factor) for headroom in headrooms.values()) == [(2.0, 1.0), (8.0, 4.0)]


@pytest.mark.parametrize("network", [residual_network, inverted_residual_network])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scales_within_the_headroom_keep_the_function(network, seed):
    model = canonicalise(network())
    batch = samples_for(model, seed=seed)
    groups, headrooms = headroom_of(model, [batch])
    assert any(group.clipped for group in groups.groups) == (network is inverted_residual_network)
    random = np.random.default_rng(seed)
    factors = {}
    for index, headroom in headrooms.items():
        wanted = np.exp(random.uniform(np.log(0.1), np.log(np.minimum(headroom.max_factor, 8.0))))
        factors[index] = np.where(headroom.fixed, 1.0, wanted)
    assert any((each != 1.0).any() for each in factors.values())
    check_float_equal(model, move_channels(model, Scales(groups, factors)), batch, 1e-5)
