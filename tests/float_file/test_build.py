"""The float file: names, kernels, geometry, and the refusal of files that compute something else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cancelling_networks import sums_of_many_products
from keras import layers

from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.float_file.convert import convert_float
from tfptq.graph.float_equality import FloatEqualityError
from tfptq.pipeline.steps import kernel_views
from tfptq.tflite.model import TFLiteModel

RNG = np.random.default_rng(0)


def float_file_of(model):
    return make_float_file(model, kernel_views(model))


@pytest.fixture(scope="module")
def network():
    """One layer of each kind that has a window."""
    keras.utils.set_random_seed(0)
    a, b = keras.Input((9, 9, 4), name="a"), keras.Input((3,), name="b")
    x = layers.Conv2D(6, (3, 2), strides=(2, 1), padding="same", name="conv")(a)
    x = layers.Conv2D(6, 3, groups=2, name="grouped")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2DTranspose(5, 2, strides=2, name="transposed")(x)
    y = layers.Dense(5, use_bias=False, name="dense")(b)
    model = keras.Model([a, b], [layers.Dense(2, name="head")(x), y], name="network")
    model.set_weights([RNG.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def float_file(network):
    return float_file_of(network)


@pytest.fixture(scope="module")
def batch():
    return {
        "a": RNG.normal(size=(4, 9, 9, 4)).astype(np.float32),
        "b": RNG.normal(size=(4, 3)).astype(np.float32),
    }


def test_every_kernel_is_that_of_its_layer(float_file, network):
    names = {"conv", "grouped", "depthwise", "transposed", "head", "dense"}
    assert {kernel.id.layer for kernel in float_file.kernels} == names
    for kernel in float_file.kernels:
        np.testing.assert_array_equal(kernel.values, kernel_views(network)[kernel.id])
        (use,) = kernel.uses
        np.testing.assert_array_equal(use.view.to_view(float_file.model.constant(use.tensor)), kernel.values)


def test_kernels_are_asked_for_by_layer(float_file):
    assert float_file.kernel("conv").id == ("conv", "kernel")
    assert list(float_file.uses) == [use for kernel in float_file.kernels for use in kernel.uses]
    with pytest.raises(KeyError, match="no kernel 'conv/recurrent'"):
        float_file.kernel("conv", "recurrent")


def test_other_values_in_some_operators(float_file, network, batch):
    changed = keras.models.clone_model(network)
    changed.set_weights(network.get_weights())
    conv = changed.get_layer("conv")
    conv.set_weights([2.0 * weight + 1.0 for weight in conv.get_weights()])
    kernel = float_file.kernel("conv")
    (use,) = kernel.uses
    edited = float_file.with_values({use: (2.0 * kernel.values + 1.0, 2.0 * use.bias + 1.0)})
    assert check_float_file(edited, changed, batch) < 1e-5
    assert check_float_file(float_file, network, batch) < 1e-5  # as it was
    assert edited.kernels == float_file.kernels


def test_biases(float_file, network):
    for kernel in float_file.kernels:
        bias = network.get_layer(kernel.id.layer).bias
        if bias is None:
            assert kernel.uses[0].bias is None
        else:
            np.testing.assert_array_equal(kernel.uses[0].bias, np.asarray(bias))


def test_inputs_go_by_their_keras_names(float_file):
    assert set(float_file.inputs) == {"a", "b"}
    assert float_file.model.shape(float_file.inputs["a"]) == (1, 9, 9, 4)
    assert float_file.model.shape(float_file.inputs["b"]) == (1, 3)
    assert float_file.batch_size is None


class Renamed:
    """Changes the names of the signature's inputs, as other versions of TensorFlow do."""

    def __init__(self, rename):
        self.rename = rename

    def __call__(self, *arguments):
        changed = TFLiteModel(convert_float(*arguments))
        for entry in changed.root.signatureDefs[0].inputs:
            entry.name = self.rename(entry.name.decode())
        return changed.to_bytes()


@pytest.fixture(scope="module")
def flipped():
    """Two inputs of equal shape, which the converter puts into the order of their names."""
    b, a = keras.Input((3,), name="b.x"), keras.Input((3,), name="a.y")
    return keras.Model([b, a], layers.Dense(2, name="dense")(b - 3.0 * a), name="flipped")


@pytest.mark.parametrize("rename", [str, lambda name: name.replace(".", "_")])
def test_inputs_are_matched_by_name_where_their_order_changes(monkeypatch, flipped, rename):
    monkeypatch.setattr("tfptq.float_file.build.convert_float", Renamed(rename))
    float_file = float_file_of(flipped)
    order = [float_file.model.name(index) for index in float_file.model.subgraph.inputs]
    assert order == ["serving_default_a.y:0", "serving_default_b.x:0"]
    assert [float_file.model.name(float_file.inputs[name]) for name in ("b.x", "a.y")] == order[::-1]
    batch = {name: RNG.normal(size=(4, 3)).astype(np.float32) for name in ("b.x", "a.y")}
    assert check_float_file(float_file, flipped, batch) < 1e-5


def test_inputs_without_a_signature(monkeypatch, flipped):
    def without_signature(*arguments):
        changed = TFLiteModel(convert_float(*arguments))
        changed.root.signatureDefs = None
        return changed.to_bytes()

    monkeypatch.setattr("tfptq.float_file.build.convert_float", without_signature)
    float_file = float_file_of(flipped)
    assert float_file.model.name(float_file.inputs["b.x"]) == "serving_default_b.x:0"


@pytest.mark.parametrize("rename", [lambda name: f"args_{'ba'.index(name[0])}", lambda name: "a"])
def test_inputs_that_cannot_be_matched_are_refused(monkeypatch, flipped, rename):
    monkeypatch.setattr("tfptq.float_file.build.convert_float", Renamed(rename))
    with pytest.raises(ValueError, match=r"cannot be matched with the model's, \['a.y', 'b.x'\]"):
        float_file_of(flipped)


def test_windows(float_file):
    windows = {kernel.id.layer: kernel.uses[0].window for kernel in float_file.kernels}
    assert (windows["conv"].kernel, windows["conv"].strides, windows["conv"].padding) == ((3, 2), (2, 1), "same")
    assert windows["grouped"].groups == 2
    assert windows["depthwise"].groups == 6
    assert windows["transposed"].transposed
    assert windows["head"].kernel == windows["dense"].kernel == (1, 1)


def test_an_equal_file_is_accepted(float_file, network, batch):
    assert check_float_file(float_file, network, batch) < 1e-5


def test_a_file_that_computes_something_else_is_refused(float_file, network, batch):
    changed = keras.models.clone_model(network)
    changed.set_weights([weight * 1.01 for weight in network.get_weights()])
    with pytest.raises(FloatEqualityError, match="'network' differs from the model by"):
        check_float_file(float_file, changed, batch)


def test_nan_outputs_are_refused(float_file, network, batch):
    broken = {**batch, "b": np.full((4, 3), np.nan, np.float32)}
    with pytest.raises(FloatEqualityError, match="nan"):
        check_float_file(float_file, network, broken)


def test_nan_that_only_the_file_gives_is_explained():
    """XNNPACK divides by the length of a vector of zeros."""
    inputs = keras.Input((4,), name="x")
    keras.utils.set_random_seed(0)
    x = layers.UnitNormalization()(layers.Dense(4, activation="relu", name="before")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(FloatEqualityError, match="gives NaN where the model gives numbers.*UnitNormalization"):
        check_float_file(float_file_of(model), model, {"x": np.zeros((2, 4), np.float32)})


def test_factors_that_the_converter_fuses():
    """A constant multiplication after a convolution disappears into the kernel."""
    inputs = keras.Input((4, 4, 2), name="x")
    factors = np.asarray([2.0, 0.5, -1.0], np.float32)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv")(inputs) * factors)
    float_file = float_file_of(model)
    (kernel,) = float_file.kernels
    assert kernel.id == ("conv", "kernel")
    np.testing.assert_allclose(kernel.uses[0].row_factors, factors, rtol=1e-6)


def test_fixed_batches():
    inputs = keras.Input(batch_shape=(4, 3), name="x")
    float_file = float_file_of(keras.Model(inputs, layers.Dense(2, name="dense")(inputs)))
    assert float_file.batch_size == 4


def test_recurrent_models_take_one_sample():
    inputs = keras.Input((5, 3), name="x")
    model = keras.Model(inputs, layers.GRU(2, name="memory")(inputs))
    assert make_float_file(model, {}).batch_size == 1


def test_any_name_of_a_model_will_do():
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, {"y": layers.Dense(2, name="dense")(inputs)}, name="mein schönes Netz")
    assert list(make_float_file(model, {}).inputs) == ["x"]


def test_the_converters_words_are_in_the_error():
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, layers.Lambda(lambda x: tf.math.betainc(x, x, x), name="beta")(inputs), name="odd")
    with pytest.raises(ValueError, match="(?s)cannot convert the model 'odd'.*Betainc.*Replace the layers it names"):
        convert_float(model)


def test_sums_of_many_products_are_rounded_otherwise():
    model, x = sums_of_many_products()
    assert check_float_file(float_file_of(model), model, {"x": x}) > 1e-3
