"""Equal weights get kernels of their own in the float file, and the values that they had."""

import keras
import numpy as np
import pytest
from keras import layers

from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.float_file.equal_weights import equal_weights, perturb
from tfptq.float_file.kernel import KernelId
from tfptq.pipeline.steps import kernel_views

RNG = np.random.default_rng(0)
SQUARE = keras.initializers.Constant(RNG.normal(size=(6, 6)))
KEYS = {KernelId("one", "kernel"), KernelId("two", "kernel")}


def dense(name, initializer=SQUARE, **options):
    return layers.Dense(6, kernel_initializer=initializer, name=name, **options)


def float_file_of(model):
    before = [np.array(weight) for weight in model.get_weights()]
    float_file = make_float_file(model, kernel_views(model))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return float_file


def test_only_equal_weights_are_found():
    weight = RNG.normal(size=(3, 4, 1)).astype(np.float32)
    other = weight + 1
    a, b, c, d, e = (KernelId(name, "kernel") for name in "abcde")
    weights = {a: weight, b: weight.copy(), c: other, d: weight.reshape(4, 3, 1), e: 2 * other}
    assert equal_weights(weights) == {a, b, d}
    assert equal_weights(weights, [other[..., 0]]) == {a, b, c, d}
    assert equal_weights({c: other}, [weight, weight]) == set()


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 9)])
@pytest.mark.parametrize("value", [0.0, -0.3])
def test_perturbed_weights_differ_from_all_and_hardly_from_their_own_values(shape, value):
    weights = {KernelId(f"layer_{number}", "kernel"): np.full(shape, value, np.float32) for number in range(300)}
    found = perturb(weights, set(weights))
    own = weights["layer_0", "kernel"]
    assert len({item.tobytes() for item in found.values()} | {own.tobytes()}) == 301
    for item in found.values():
        np.testing.assert_allclose(item, value, rtol=2e-4, atol=1e-26)
    again = perturb(weights, set(weights))
    assert all((found[key] == again[key]).all() for key in found)


def check_own_kernels(float_file, inputs_of):
    """Each layer has a kernel with its values, and reads what it should."""
    model = float_file.model
    uses = {kernel.id: kernel.uses[0] for kernel in float_file.kernels}
    assert all(len(kernel.uses) == 1 for kernel in float_file.kernels)
    assert len({use.tensor for use in uses.values()}) == len(uses) == len(float_file.kernels)
    assert {id.layer for id in uses} >= set(inputs_of)
    producers = model.producers()
    for id, use in uses.items():
        expected = inputs_of.get(id.layer)
        if expected is not None:
            source = model.operators[producers[use.input]]
            assert model.operator_name(source) == expected
    return uses


@pytest.mark.parametrize("initializer", [SQUARE, "zeros", "ones"])
def test_equal_kernels_one_after_the_other(initializer):
    inputs = keras.Input((6,))
    x = dense("one", initializer)(keras.ops.tanh(inputs))
    x = dense("two", initializer)(keras.ops.sigmoid(x))
    model = keras.Model(inputs, x)
    float_file = float_file_of(model)
    check_own_kernels(float_file, {"one": "TANH", "two": "LOGISTIC"})
    assert all(use.row_factors is None for use in float_file.uses)
    buffers = {float_file.model.tensors[use.tensor].buffer for use in float_file.uses}
    assert len(buffers) == 1  # the float file is not larger than that of the converter
    for kernel in float_file.kernels:
        np.testing.assert_array_equal(kernel.values, kernel_views(model)[kernel.id])
        (use,) = kernel.uses
        np.testing.assert_array_equal(use.view.to_view(float_file.model.constant(use.tensor)), kernel.values)


BLUR = keras.initializers.Constant(1.0 / 9.0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda name: layers.Conv2D(3, 3, kernel_initializer=BLUR, name=name),
        lambda name: layers.DepthwiseConv2D(3, depthwise_initializer=BLUR, name=name),
    ],
)
def test_equal_kernels_in_parallel_branches(layer):
    """Named in the reverse of the order of computation, and outputs, which bear no names."""
    inputs = keras.Input((5, 5, 3))
    two = layer("two")(keras.ops.tanh(inputs))
    one = layer("one")(keras.ops.sigmoid(inputs))
    check_own_kernels(float_file_of(keras.Model(inputs, [one, two])), {"one": "LOGISTIC", "two": "TANH"})


def test_equal_kernels_on_one_input():
    """The converter would make one operator of both."""
    inputs = keras.Input((6,))
    float_file = float_file_of(keras.Model(inputs, [dense("one")(inputs), dense("two")(inputs)]))
    assert set(check_own_kernels(float_file, {})) == KEYS


def test_equal_projections_of_an_attention_layer():
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(2, 3, kernel_initializer="zeros", name="attention")
    kernels = check_own_kernels(float_file_of(keras.Model(inputs, attention(inputs, inputs))), {})
    assert {weight for _, weight in kernels} == {
        f"{name}/kernel" for name in ("query", "key", "value", "attention_output")
    }


def test_shared_layers_have_one_kernel_beside_an_equal_one():
    inputs = keras.Input((6,))
    shared = dense("shared")
    x = dense("other")(keras.ops.tanh(shared(keras.ops.relu(shared(inputs)))))
    float_file = float_file_of(keras.Model(inputs, x))
    assert [(kernel.id.layer, len(kernel.uses)) for kernel in float_file.kernels] == [("shared", 2), ("other", 1)]
    shared, other = ({use.tensor for use in kernel.uses} for kernel in float_file.kernels)
    assert len(shared) == len(other) == 1 and shared != other


def test_factors_beside_equal_kernels():
    """The converter fuses the constants; both kernels are multiples of the same values."""
    inputs = keras.Input((4, 4, 6))
    kinds = {"filters": 6, "kernel_size": 1, "kernel_initializer": keras.initializers.RandomNormal(seed=1)}
    one = layers.Conv2D(name="one", **kinds)(keras.ops.tanh(inputs)) * np.float32(3.0)
    two = layers.Conv2D(name="two", **kinds)(keras.ops.sigmoid(inputs)) * np.float32(-0.5)
    float_file = float_file_of(keras.Model(inputs, [two, one]))
    check_own_kernels(float_file, {"one": "TANH", "two": "LOGISTIC"})
    factors = {kernel.id.layer: kernel.uses[0].row_factors[0] for kernel in float_file.kernels}
    assert factors == pytest.approx({"one": 3.0, "two": -0.5}, rel=1e-4)


def test_constants_and_unknown_layers_with_the_values_of_a_weight_are_nobodys():
    inputs = keras.Input((6,))
    values = np.asarray(SQUARE.value, np.float32)
    float_file = float_file_of(keras.Model(inputs, keras.ops.matmul(keras.ops.tanh(dense("one")(inputs)), values)))
    assert [kernel.id.layer for kernel in float_file.kernels] == ["one", None]
    inputs = keras.Input((2, 5, 5, 3))
    kernel = {"kernel_initializer": keras.initializers.RandomNormal(seed=1)}
    x = layers.TimeDistributed(layers.Conv2D(3, 3, **kernel), name="unknown")(inputs)
    x = layers.Conv2D(3, 3, name="one", **kernel)(keras.ops.reshape(x, (-1, 3, 3, 3)))
    kernels = float_file_of(keras.Model(inputs, x)).kernels
    uses = {use.operator: kernel.id.layer for kernel in kernels for use in kernel.uses}
    assert [uses[at] for at in sorted(uses)] == [None, None, "one"]


@keras.saving.register_keras_serializable("test_equal_weights")
class Centred(layers.Dense):
    """What its kernel in the file is, small differences between its weights decide."""

    def call(self, inputs):
        kernel = self.kernel - keras.ops.mean(self.kernel)
        return keras.ops.matmul(inputs, kernel / (keras.ops.std(kernel) + 1e-6) + 0.5)


def test_weights_that_are_not_found_keep_their_values():
    inputs = keras.Input((6,), name="x")
    x = Centred(6, kernel_initializer="ones", name="one")(inputs)
    model = keras.Model(inputs, Centred(6, kernel_initializer="ones", name="two")(keras.ops.tanh(x)))
    float_file = float_file_of(model)
    assert [kernel.id.layer for kernel in float_file.kernels for _ in kernel.uses] == [None, None]
    assert check_float_file(float_file, model, {"x": RNG.normal(size=(4, 6)).astype(np.float32)}) < 1e-6
