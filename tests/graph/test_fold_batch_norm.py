import keras
import numpy as np
import pytest
from graph_models import batch_for, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfptq.graph import canonicalise, check_float_equal


def folded(model, seed=0):
    canonical = canonicalise(randomise(model, seed))
    check_float_equal(model, canonical, batch_for(model), 2e-6)
    return canonical


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def stack(shape, *members):
    inputs = keras.Input(shape)
    x = inputs
    for member in members:
        x = member(x)
    return keras.Model(inputs, x)


FOLDABLE = {
    "conv2d": ((6, 6, 4), lambda **k: layers.Conv2D(6, 3, **k)),
    "conv2d_grouped": ((6, 6, 4), lambda **k: layers.Conv2D(6, 3, groups=2, **k)),
    "conv2d_dilated": ((6, 6, 4), lambda **k: layers.Conv2D(6, 3, dilation_rate=2, **k)),
    "conv1d": ((6, 4), lambda **k: layers.Conv1D(6, 3, strides=2, **k)),
    "conv3d": ((4, 4, 4, 2), lambda **k: layers.Conv3D(3, 2, **k)),
    "depthwise_conv2d": ((6, 6, 4), lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, **k)),
    "depthwise_conv1d": ((6, 4), lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=2, **k)),
    "dense": ((4,), lambda **k: layers.Dense(6, **k)),
    "dense_rank_3": ((5, 4), lambda **k: layers.Dense(6, **k)),
}
TRANSPOSED = {
    "conv2d_transpose": ((6, 6, 4), lambda **k: layers.Conv2DTranspose(6, 3, strides=2, **k)),
    "conv1d_transpose": ((6, 4), lambda **k: layers.Conv1DTranspose(6, 3, strides=2, **k)),
    "conv3d_transpose": ((3, 3, 3, 2), lambda **k: layers.Conv3DTranspose(3, 2, **k)),
}
SEPARABLE = {
    "separable_conv2d": ((6, 6, 4), lambda **k: layers.SeparableConv2D(6, 3, depth_multiplier=2, name="s", **k)),
    "separable_conv1d": ((6, 4), lambda **k: layers.SeparableConv1D(6, 3, name="s", **k)),
}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("name", [*FOLDABLE, *TRANSPOSED, *SEPARABLE])
def test_batch_normalization_after_a_linear_layer_folds(name, use_bias):
    shape, make = {**FOLDABLE, **TRANSPOSED, **SEPARABLE}[name]
    canonical = folded(stack(shape, make(use_bias=use_bias), layers.BatchNormalization(), layers.ReLU()))
    assert "BatchNormalization" not in kinds(canonical)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("name", [*FOLDABLE, *SEPARABLE])
def test_batch_normalization_before_a_layer_without_padding_folds(name, use_bias):
    shape, make = {**FOLDABLE, **SEPARABLE}[name]
    canonical = folded(stack(shape, layers.ReLU(), layers.BatchNormalization(), make(use_bias=use_bias)))
    assert "BatchNormalization" not in kinds(canonical)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_only_a_pure_scale_folds_into_a_following_transposed_convolution(name):
    shape, make = TRANSPOSED[name]
    assert kinds(folded(stack(shape, layers.Rescaling(np.arange(1.0, shape[-1] + 1)), make()))) == [
        type(make()).__name__
    ]
    left = "DepthwiseConv2D" if len(shape) == 3 else "BatchNormalization"
    assert left in kinds(folded(stack(shape, layers.BatchNormalization(), make())))


def test_padding_decides_whether_a_shift_folds_forward():
    def network(shift, **conv):
        return folded(stack((6, 6, 3), layers.Rescaling([0.5, 2.0, 3.0], shift), layers.Conv2D(4, **conv)))

    assert kinds(network(-1.0, kernel_size=3, padding="same")) == ["Rescaling", "Conv2D"]
    assert kinds(network(0.0, kernel_size=3, padding="same")) == ["Conv2D"]
    assert kinds(network(-1.0, kernel_size=1, padding="same", strides=2)) == ["Conv2D"]
    assert kinds(network(-1.0, kernel_size=3, padding="valid")) == ["Conv2D"]


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_scale_and_center_may_be_off(scale, center):
    norm = layers.BatchNormalization(scale=scale, center=center, epsilon=0.1)
    assert kinds(folded(stack((5, 5, 2), layers.Conv2D(3, 3), norm))) == ["Conv2D"]


def test_what_must_stay_stays():
    norm = layers.BatchNormalization
    assert "BatchNormalization" in kinds(folded(stack((4,), layers.Dense(3, activation="relu"), norm())))
    assert "BatchNormalization" in kinds(folded(stack((6, 6, 2), layers.Conv2D(4, 3), norm(axis=1))))
    assert "BatchNormalization" in kinds(folded(stack((4, 4, 2), layers.Conv2D(4, 3), layers.Flatten(), norm())))
    inputs = keras.Input((4,))
    x = layers.Dense(3)(inputs)
    assert "BatchNormalization" in kinds(folded(keras.Model(inputs, layers.Add()([norm()(x), x]))))


@pytest.mark.parametrize("called", ["once", "twice"])
def test_what_must_stay_of_feature_maps_is_a_depthwise_convolution(called):
    norm = layers.BatchNormalization(name="norm")
    inputs = keras.Input((6, 6, 2))
    x = norm(layers.MaxPooling2D()(inputs), training=False)
    x = norm(layers.ReLU()(x)) if called == "twice" else x
    canonical = folded(keras.Model(inputs, layers.Conv2D(3, 3, padding="same")(x)))
    assert kinds(canonical)[:2] == ["MaxPooling2D", "DepthwiseConv2D"] and kinds(canonical)[-1] == "Conv2D"
    assert canonical.get_layer("norm").kernel_size == (1, 1)


@pytest.mark.parametrize("before", [True, False])
def test_layers_that_are_called_together_fold_together(before):
    """A tower for two inputs, with normalizations behind its convolutions or in front of them."""
    tower_input = keras.Input((8, 8, 3))
    members = [layers.Conv2D(4, 3), layers.BatchNormalization()]
    x = tower_input
    for member in (*members[:: -1 if before else 1], layers.ReLU(), layers.Conv2D(4, 1), layers.BatchNormalization()):
        x = member(x)
    tower = keras.Model(tower_input, x)
    first, second, third = (keras.Input((8, 8, 3), name=name) for name in ("first", "second", "third"))
    model = keras.Model([first, second, third], [layers.Add()([tower(first), tower(second)]), tower(third)])
    canonical = folded(model)
    assert kinds(canonical).count("Conv2D") == 2 and "BatchNormalization" not in kinds(canonical)


def test_a_pair_that_is_called_twice_in_a_row_folds():
    shared, norm = layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()
    canonical = folded(stack((6, 6, 4), shared, norm, layers.ReLU(), shared, norm))
    assert kinds(canonical) == ["Conv2D", "ReLU"]


@pytest.mark.parametrize("elsewhere", ["convolution", "normalization", "both"])
def test_layers_that_are_called_apart_as_well(elsewhere):
    """A convolution without its normalization, a normalization without its convolution, or both."""
    inputs = keras.Input((6, 6, 4))
    shared, norm = layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(name="norm")
    x = norm(shared(inputs))
    y = inputs if elsewhere == "normalization" else shared(layers.ReLU()(x))
    y = y if elsewhere == "convolution" else norm(layers.ReLU()(y))
    canonical = folded(keras.Model(inputs, layers.Add()([x, y])))
    assert kinds(canonical).count("Conv2D") == 1
    expected = layers.BatchNormalization if elsewhere == "convolution" else layers.DepthwiseConv2D
    assert type(canonical.get_layer("norm")) is expected
    # A convolution that is called once takes its normalization in, wherever else that is called.
    assert len(canonical.get_layer("norm")._inbound_nodes) == (2 if elsewhere == "both" else 1)


def test_batch_norm_behind_a_convolution_that_others_read_is_a_depthwise_convolution():
    inputs = keras.Input((6, 6, 2))
    shared = layers.Conv2D(4, 3, padding="same")(inputs)
    branch = layers.ReLU()(layers.BatchNormalization(name="norm")(shared))
    model = keras.Model(inputs, layers.Add()([shared, layers.Conv2D(4, 3, padding="same")(branch)]))
    canonical = folded(model)
    assert "BatchNormalization" not in kinds(canonical)
    assert canonical.get_layer("norm").kernel_size == (1, 1)


def test_chains_fold_into_one_layer():
    model = stack(
        (5, 5, 3),
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[0.5, 1.0, 2.0]),
        layers.Rescaling(2.0, [1.0, 0.0, -1.0]),
        layers.Activation("linear"),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.SpatialDropout2D(0.5),
        layers.Rescaling(0.5, 0.25),
        layers.BatchNormalization(),
    )
    assert kinds(folded(model)) == ["Conv2D"]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("axis", [-1, None])
def test_adapted_normalization_folds(invert, axis):
    norm = layers.Normalization(axis=axis, invert=invert)
    norm.adapt(np.random.default_rng(0).normal(2.0, 3.0, (50, 4)).astype(np.float32))
    model = stack((4,), norm, layers.Dense(3))
    canonical = canonicalise(model)
    check_float_equal(model, canonical, batch_for(model), 2e-6)
    assert kinds(canonical) == ["Dense"]


def test_adapted_normalization_that_stays_keeps_its_statistics():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(2.0, 3.0, (50, 4)).astype(np.float32))
    model = stack((4,), norm, layers.ReLU(), layers.Dense(3))
    check_float_equal(model, canonicalise(model), batch_for(model), 1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * 2.5,
        lambda x: 2.5 * x,
        lambda x: x / 4.0,
        lambda x: x + 1.0,
        lambda x: 1.0 - x,
        lambda x: x - np.array([1.0, 2.0, 3.0], np.float32),
        lambda x: -x,
        lambda x: keras.ops.multiply(np.array([1.0, -2.0, 0.0], np.float32), x),
    ],
)
def test_constant_operations_fold(operation):
    inputs = keras.Input((6, 6, 2))
    assert kinds(folded(keras.Model(inputs, operation(layers.Conv2D(3, 3)(inputs))))) == ["Conv2D"]


@pytest.mark.parametrize("operation", [lambda x: 1.0 / (x * x + 1.0), lambda x: x * np.ones((4, 4, 1), np.float32) * 2])
def test_other_operations_do_not_fold_wrongly(operation):
    inputs = keras.Input((6, 6, 2))
    folded(keras.Model(inputs, operation(layers.Conv2D(3, 3)(inputs))))


@pytest.mark.parametrize("shape", [(4, 1), (1, 4, 1), (1, 4), (4,), (1, 1)])
@pytest.mark.parametrize(
    "operation",
    [keras.ops.multiply, keras.ops.add, lambda x, c: keras.ops.subtract(c, x), lambda x, c: x / (c + 0.5)],
)
def test_constants_fold_only_along_the_channels(operation, shape):
    """``[C, 1]`` beside ``[batch, C, C]`` lies along the other axis, and ``[1, C]`` along that of the channels."""
    constant, inputs = np.arange(1.0, 1.0 + np.prod(shape), dtype=np.float32).reshape(shape), keras.Input((4, 4))
    canonical = folded(keras.Model(inputs, operation(layers.Dense(4)(inputs), constant)))
    assert (len(canonical.operations) == 2) == (shape[-1] == np.prod(shape))


def test_integer_inputs_are_rescaled_not_folded():
    inputs = keras.Input((6, 6, 3), dtype="uint8")
    x = layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(inputs))
    assert kinds(folded(keras.Model(inputs, x)))[0] == "Rescaling"


@pytest.mark.parametrize("use_bias", [True, False])
def test_separable_convolution_is_split(use_bias):
    layer = layers.SeparableConv2D(5, 3, strides=2, padding="same", use_bias=use_bias, activation="relu", name="sep")
    canonical = folded(stack((7, 7, 3), layer))
    assert [member.name for member in canonical.layers[1:]] == ["sep_depthwise", "sep_pointwise"]
    assert not canonical.layers[1].bias.numpy().any()


def test_shared_separable_convolution_stays_shared():
    shared = layers.SeparableConv2D(3, 3, padding="same")
    canonical = folded(stack((7, 7, 3), shared, layers.ReLU(), shared))
    assert sorted(kinds(canonical)) == ["Conv2D", "DepthwiseConv2D", "ReLU"]


@settings(max_examples=15)
@given(
    st.lists(
        st.sampled_from(["conv", "conv_same", "depthwise", "norm", "rescale", "relu", "dropout", "times"]),
        min_size=2,
        max_size=7,
    ),
    st.integers(0, 10**6),
)
def test_any_stack_keeps_its_function(names, seed):
    makers = {
        "conv": lambda: layers.Conv2D(3, 1),
        "conv_same": lambda: layers.Conv2D(3, 3, padding="same"),
        "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same"),
        "norm": layers.BatchNormalization,
        "rescale": lambda: layers.Rescaling(0.5, 0.1),
        "relu": layers.ReLU,
        "dropout": lambda: layers.Dropout(0.5),
        "times": lambda: lambda x: x * np.array([1.0, 0.5, -2.0], np.float32),
    }
    model = stack((4, 4, 3), *(makers[name]() for name in names), layers.Flatten(), layers.Dense(2))
    folded(model, seed)
