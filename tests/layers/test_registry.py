import keras
import numpy as np
import pytest
from keras import layers

from tfptq.core.blocks import WeightView
from tfptq.layers import WeightSpec, is_weighted, register, supports, weight_specs
from tfptq.layers.registry import einsum_axes

#: Layer and shape of an input.
SINGLE_INPUT = {
    "dense": (layers.Dense(5), (4,)),
    "dense_rank_3": (layers.Dense(5), (3, 4)),
    "conv_1d": (layers.Conv1D(6, 3, padding="same"), (7, 4)),
    "conv_2d": (layers.Conv2D(6, (3, 2), padding="same"), (5, 6, 4)),
    "conv_2d_groups": (layers.Conv2D(6, 3, groups=2, padding="same"), (5, 5, 4)),
    "conv_1d_transpose": (layers.Conv1DTranspose(5, 3, padding="same"), (4, 3)),
    "conv_2d_transpose": (layers.Conv2DTranspose(5, 3, strides=2, padding="same"), (4, 4, 3)),
    "depthwise_1d": (layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same"), (6, 3)),
    "depthwise_2d": (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (5, 5, 3)),
    "einsum_dense": (layers.EinsumDense("abc,cd->abd", (None, 5)), (3, 4)),
    "einsum_two_outputs": (layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (3, 4)),
    "einsum_two_inputs": (layers.EinsumDense("abcd,cde->abe", (None, 5)), (3, 2, 4)),
    "einsum_swapped": (layers.EinsumDense("abc,edc->abde", (None, 2, 5)), (3, 4)),
    "einsum_per_position": (layers.EinsumDense("abc,bcd->abd", (3, 5)), (3, 4)),
    "einsum_ellipsis": (layers.EinsumDense("...x,xy->...y", 5), (3, 4)),
}


def built(name):
    layer, shape = SINGLE_INPUT[name]
    inputs = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    layer(inputs)
    return layer, inputs


@pytest.mark.parametrize("name", SINGLE_INPUT)
def test_view_and_kernel_go_both_ways(name):
    layer, _ = built(name)
    (spec,) = weight_specs(layer)
    kernel = keras.ops.convert_to_numpy(spec.variable)
    np.testing.assert_array_equal(spec.view.from_view(spec.view.to_view(kernel)), kernel)
    assert spec.name == "kernel"
    assert spec.bias is layer.bias


@pytest.mark.parametrize(
    ("equation", "output_shape", "bias_axes", "kept"),
    [
        ("abc,cde->abde", (None, 2, 5), "de", True),
        ("abc,cde->abde", (None, 2, 5), "e", False),
        ("abc,cde->abde", (None, 2, 5), "d", False),
        ("abc,cde->abde", (None, 1, 5), "e", True),
        ("abc,cde->abde", (None, 2, 5), None, False),
        ("abc,cd->abd", (3, 3), "b", False),  # as many numbers as outputs, but for positions
        ("abc,cd->abd", (3, 3), "bd", False),
        ("...x,xy->...y", 5, "y", True),
    ],
)
def test_only_a_bias_of_each_output_is_that_of_the_kernel(equation, output_shape, bias_axes, kept):
    layer = layers.EinsumDense(equation, output_shape, bias_axes=bias_axes)
    layer.build((2, 3, 4))
    (spec,) = weight_specs(layer)
    assert spec.bias is (layer.bias if kept else None)


@pytest.mark.parametrize("name", [name for name in SINGLE_INPUT if name != "einsum_per_position"])
def test_each_row_of_the_view_feeds_its_output_channel_only(name):
    layer, inputs = built(name)
    (spec,) = weight_specs(layer)
    rows = spec.view.view_shape[0]
    for row in range(rows):
        view = np.zeros(spec.view.view_shape, np.float32)
        view[row] = 1.0
        spec.variable.assign(spec.view.from_view(view))
        outputs = keras.ops.convert_to_numpy(layer(inputs)).reshape(-1, rows)
        assert set(np.flatnonzero(np.abs(outputs).max(axis=0))) == {row}


@pytest.mark.parametrize("name", [name for name in SINGLE_INPUT if "depthwise" not in name])
def test_each_column_of_the_view_meets_its_input_channel_only(name):
    layer, inputs = built(name)
    (spec,) = weight_specs(layer)
    columns = spec.view.view_shape[1]
    flat = inputs.reshape(-1, columns)  # Groups of a grouped convolution are further positions here.
    for column in range(columns):
        view = np.zeros(spec.view.view_shape, np.float32)
        view[:, column] = 1.0
        spec.variable.assign(spec.view.from_view(view))
        only = np.zeros_like(flat)
        only[:, column] = flat[:, column]
        expected, found = layer(inputs), layer(only.reshape(inputs.shape))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.abs(expected).max() > 0.0


@pytest.mark.parametrize("name", ["dense", "dense_rank_3", "einsum_dense", "einsum_two_outputs", "einsum_two_inputs"])
def test_output_is_the_view_times_the_input(name):
    layer, inputs = built(name)
    (spec,) = weight_specs(layer)
    view = spec.view.to_view(keras.ops.convert_to_numpy(spec.variable))[..., 0]  # [O, I]
    expected = inputs.reshape(-1, view.shape[1]) @ view.T
    np.testing.assert_allclose(np.reshape(layer(inputs), expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_output_of_a_pointwise_convolution_is_the_view_times_the_input():
    layer = layers.Conv2D(5, 1)
    inputs = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    outputs = layer(inputs)
    (spec,) = weight_specs(layer)
    view = spec.view.to_view(keras.ops.convert_to_numpy(spec.variable))[..., 0]
    np.testing.assert_allclose(outputs, inputs @ view.T, rtol=1e-4, atol=1e-5)


def test_separable_convolution_has_two_weights():
    layer = layers.SeparableConv2D(6, 3, depth_multiplier=2)
    layer.build((None, 5, 5, 4))
    depthwise, pointwise = weight_specs(layer)
    assert (depthwise.name, depthwise.view.view_shape, depthwise.bias) == ("depthwise_kernel", (8, 1, 9), None)
    assert (pointwise.name, pointwise.view.view_shape) == ("pointwise_kernel", (6, 8, 1))
    assert pointwise.bias is layer.bias


@pytest.mark.parametrize(
    ("layer", "heads"),
    [(layers.MultiHeadAttention(2, 4), (2, 2)), (layers.GroupQueryAttention(4, 4, 2), (4, 2))],
)
def test_attention_has_its_projections(layer, heads):
    layer.build((None, 7, 6), (None, 7, 6))
    specs = {spec.name: spec for spec in weight_specs(layer)}
    assert list(specs) == ["query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"]
    assert specs["query/kernel"].view.view_shape == (4 * heads[0], 6, 1)
    assert specs["key/kernel"].view.view_shape == (4 * heads[1], 6, 1)
    assert specs["attention_output/kernel"].view.view_shape == (6, 4 * heads[0], 1)
    assert all(spec.bias is not None for spec in specs.values())


def test_einsum_axes_of_a_label_in_both_operands_and_the_output_number_outputs():
    assert einsum_axes("abc, bcd -> abd") == ((0, 2), (1,))


@pytest.mark.parametrize("layer", [layers.Conv3D(2, 1), layers.Embedding(3, 4), layers.LSTM(2), layers.ReLU()])
def test_unknown_classes_are_refused_with_the_way_out(layer):
    assert not supports(layer)
    with pytest.raises(ValueError, match=r"tfptq\.layers\.register\("):
        weight_specs(layer)


def test_unbuilt_layer_is_refused():
    with pytest.raises(ValueError, match="no weights yet"):
        weight_specs(layers.Dense(3))


def test_weighted_means_a_float_matrix():
    lstm, norm, dense = layers.LSTM(2), layers.LayerNormalization(), layers.Dense(2)
    for layer in (lstm, norm, dense):
        layer.build((None, 3, 4))
    assert is_weighted(lstm)
    assert is_weighted(dense)
    assert not is_weighted(norm)


def test_users_register_their_own_classes():
    class RowDense(keras.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(3, input_shape[-1]), name="table")

        def call(self, inputs):
            return inputs @ keras.ops.transpose(self.table)

    assert not supports(RowDense())
    register(RowDense, lambda layer: [WeightSpec("table", layer.table, None, WeightView((3, 4), (0,), (1,)))])
    layer = RowDense()
    layer.build((None, 4))
    assert supports(layer)
    assert weight_specs(layer)[0].variable is layer.table

    class Child(RowDense):
        pass

    assert supports(Child())


def test_register_refuses_what_is_not_a_layer_class_or_a_function():
    with pytest.raises(TypeError, match=r"subclass of keras\.Layer"):
        register(layers.Dense(3), lambda layer: [])
    with pytest.raises(TypeError, match="function"):
        register(layers.Dense, None)
