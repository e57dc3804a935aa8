import keras
import pytest
from graph_models import inverted_residual_network, residual_network
from keras import layers

from tfptq.core.channel_graph import Change
from tfptq.core.channel_groups import Side
from tfptq.graph import canonicalise, channel_groups


def only_group(model):
    (group,) = channel_groups(model).groups
    return group


def names(sides):
    return {side.layer for side in sides}


def test_residual_network_has_one_group_per_stage_and_one_per_inner_convolution():
    canonical = canonicalise(residual_network())
    found = channel_groups(canonical)
    convolutions = [layer.name for layer in canonical.layers if isinstance(layer, layers.Conv2D)]
    stem, inner, outer, inner_2, outer_2, shortcut = convolutions
    by_producers = {frozenset(names(group.producers)): group for group in found.groups}
    assert set(by_producers) == {
        frozenset({stem, outer}),
        frozenset({inner}),
        frozenset({inner_2}),
        frozenset({outer_2, shortcut}),
    }
    assert names(by_producers[frozenset({stem, outer})].consumers) == {inner, inner_2, shortcut}
    assert by_producers[frozenset({outer_2, shortcut})].consumers == (Side("logits", "input", (0,)),)


def test_inverted_residuals_carry_the_depthwise_kernel_along():
    canonical = canonicalise(inverted_residual_network())
    depthwise = [layer.name for layer in canonical.layers if isinstance(layer, layers.DepthwiseConv2D)]
    groups = channel_groups(canonical).groups
    assert sorted(group.size for group in groups) == [4, 12, 12]
    assert [names(group.per_channel) for group in groups if group.size == 12] == [{name} for name in depthwise]
    (shared,) = [group for group in groups if group.size == 4]
    assert len(shared.producers) == 3
    (flat,) = [side for side in shared.consumers if len(side.offsets) > 1]
    assert flat.offsets == tuple(range(0, 4 * 16, 4))


def test_concatenation_keeps_groups_apart_and_gives_offsets():
    inputs = keras.Input((4, 4, 3))
    first, second = layers.Conv2D(2, 1, name="first")(inputs), layers.Conv2D(5, 1, name="second")(inputs)
    x = layers.Concatenate()([first, layers.ReLU()(second), first])
    groups = channel_groups(keras.Model(inputs, layers.Conv2D(4, 1, name="last")(x))).groups
    consumers = {side.layer: group.consumers for group in groups for side in group.producers}
    assert consumers == {"first": (Side("last", "input", (0, 7)),), "second": (Side("last", "input", (2,)),)}


def test_inputs_and_outputs_of_the_model_keep_their_order():
    inputs = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(4, 1, name="hidden")(inputs)
    shown = layers.Conv2D(4, 1, name="shown")(hidden)
    model = keras.Model(inputs, [shown, layers.Conv2D(2, 1, name="end")(shown)])
    assert names(only_group(model).producers) == {"hidden"}


@pytest.mark.parametrize(
    "barrier",
    [
        layers.LayerNormalization(),
        layers.Permute((1, 3, 2)),
        layers.Lambda(lambda x: x[..., ::-1]),
        layers.Conv2D(4, 3, groups=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.Reshape((2, 2, 16)),
        layers.Activation(lambda x: x + 1.0),
        layers.BatchNormalization(axis=1),
        layers.Rescaling([1.0, 2.0, 3.0, 4.0]),
        layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 1.0, 1.0, 1.0]),
        lambda x: x * keras.ops.convert_to_tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: keras.ops.concatenate(keras.ops.split(x, 2, axis=-1)[::-1], axis=-1),
        lambda x: x[..., 1:],
    ],
)
def test_barriers_pin_the_order(barrier):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 1)(inputs)
    x = barrier(x)
    groups = channel_groups(keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.1)(x)))).groups
    assert groups == ()


def test_adding_layouts_that_do_not_match_pins_them():
    inputs = keras.Input((4, 4, 3))
    parts = layers.Concatenate()([layers.Conv2D(2, 1)(inputs), layers.Conv2D(2, 1)(inputs)])
    whole = layers.Conv2D(4, 1)(inputs)
    assert channel_groups(keras.Model(inputs, layers.Conv2D(2, 1)(layers.Add()([parts, whole])))).groups == ()


def test_unknown_spatial_size_pins_through_flattening_only():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 1, name="conv")(inputs)
    pooled = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    assert names(only_group(pooled).producers) == {"conv"}
    reshaped = keras.Model(inputs, layers.Dense(2)(layers.Reshape((-1, 8))(x)))
    assert channel_groups(reshaped).groups == ()


def groups_across(between, change):
    """Groups of two convolutions with something between them."""
    inputs = keras.Input((4, 4, 3))
    x = between(layers.Conv2D(4, 1)(inputs))
    return channel_groups(keras.Model(inputs, layers.Conv2D(2, 1)(x)), change).groups


def test_only_homogeneous_paths_are_equalizable():
    homogeneous = (
        layers.ReLU(),
        layers.LeakyReLU(),
        layers.PReLU(),
        layers.ReLU(6.0),
        layers.Activation("relu6"),
        layers.MaxPooling2D(),
        layers.Activation("relu"),
        lambda x: layers.Maximum()([x, layers.AveragePooling2D(3, 1, padding="same")(x)]),
        lambda x: keras.ops.relu(-x),
    )
    others = (
        layers.ReLU(threshold=1.0),
        layers.ELU(),
        layers.BatchNormalization(),
        lambda x: layers.Multiply()([x, x]),
        lambda x: x + 1.0,
        lambda x: layers.Add()([x, keras.ops.mean(x, axis=-1, keepdims=True)]),
    )
    assert [len(groups_across(between, Change.SCALE)) for between in homogeneous] == [1] * len(homogeneous)
    assert [len(groups_across(between, Change.SCALE)) for between in others] == [0] * len(others)


def test_only_linear_paths_are_rotatable():
    linear = (
        layers.Activation("linear"),
        layers.AveragePooling2D(2),
        layers.ZeroPadding2D(1),
        layers.Cropping2D(1),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.Resizing(5, 5),
        lambda x: layers.Add()([x, layers.AveragePooling2D(3, 1, padding="same")(x)]),
        lambda x: layers.Average()([x, x]),
        lambda x: x - keras.ops.mean(x, axis=1, keepdims=True),
        lambda x: -x,
    )
    others = (
        layers.ReLU(),
        layers.PReLU(),
        layers.Softmax(),
        layers.MaxPooling2D(),
        layers.BatchNormalization(),
        layers.Rescaling(2.0, 1.0),
        layers.DepthwiseConv2D(3),
        lambda x: layers.Maximum()([x, layers.AveragePooling2D(3, 1, padding="same")(x)]),
        lambda x: layers.Multiply()([x, x]),
        lambda x: keras.ops.abs(x),
        lambda x: keras.ops.max(x, axis=1, keepdims=True),
        lambda x: x + 1.0,
        lambda x: layers.Add()([x, keras.ops.mean(x, axis=-1, keepdims=True)]),
    )
    assert [len(groups_across(between, Change.ROTATION)) for between in linear] == [1] * len(linear)
    assert [len(groups_across(between, Change.ROTATION)) for between in others] == [0] * len(others)


def test_layers_with_an_activation_function_are_not_rotated():
    inputs = keras.Input((4, 4, 3))
    outputs = layers.Conv2D(2, 1)(layers.Conv2D(4, 1, activation="relu")(inputs))
    assert channel_groups(keras.Model(inputs, outputs), Change.ROTATION).groups == ()


def test_groups_that_an_activation_cuts_off_are_marked():
    inputs = keras.Input((4, 4, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(4, 1)(inputs))
    x = layers.ReLU()(layers.Conv2D(5, 1)(x))
    y = layers.Conv2D(5, 1, activation="relu6")(inputs)
    outputs = layers.Conv2D(2, 1)(layers.Add()([x, layers.Conv2D(5, 1)(y)]))
    groups = channel_groups(keras.Model(inputs, outputs), Change.SCALE).groups
    assert sorted((group.size, group.clipped) for group in groups) == [(4, True), (5, False), (5, True)]
    assert not any(group.clipped for group in channel_groups(keras.Model(inputs, outputs)).groups)


def test_depthwise_layers_separate_scales():
    inputs = keras.Input((4, 4, 3))
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(layers.Conv2D(4, 1, name="first")(inputs))
    groups = channel_groups(keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x)), Change.SCALE).groups
    assert [(names(group.producers), names(group.consumers)) for group in groups] == [
        ({"first"}, {"depthwise"}),
        ({"depthwise"}, {"last"}),
    ]
