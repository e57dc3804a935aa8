"""The float skeleton: names, bindings, geometry, and the refusal of files that compute something else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfptq.graph.float_equality import FloatEqualityError
from tfptq.layers import weight_specs
from tfptq.tflite.convert import convert_float
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.skeleton import build_skeleton, check_skeleton

RNG = np.random.default_rng(0)


def views(model):
    return {
        (layer.name, spec.name): spec.view.to_view(np.asarray(spec.variable))
        for layer in model.layers
        if layer.weights
        for spec in weight_specs(layer)
    }


def skeleton_of(model):
    return build_skeleton(model, views(model))


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
def skeleton(network):
    return skeleton_of(network)


@pytest.fixture(scope="module")
def batch():
    return {
        "a": RNG.normal(size=(4, 9, 9, 4)).astype(np.float32),
        "b": RNG.normal(size=(4, 3)).astype(np.float32),
    }


def test_every_kernel_is_bound_to_its_layer(skeleton, network):
    names = {"conv", "grouped", "depthwise", "transposed", "head", "dense"}
    assert {binding.key[0] for binding in skeleton.bindings} == names
    for binding in skeleton.bindings:
        np.testing.assert_array_equal(skeleton.kernel(binding), views(network)[binding.key])


def test_biases(skeleton, network):
    for binding in skeleton.bindings:
        layer = network.get_layer(binding.key[0])
        np.testing.assert_array_equal(skeleton.bias(binding), np.asarray(layer.bias))


def test_inputs_go_by_their_keras_names(skeleton):
    assert set(skeleton.inputs) == {"a", "b"}
    assert skeleton.model.shape(skeleton.inputs["a"]) == (1, 9, 9, 4)
    assert skeleton.model.shape(skeleton.inputs["b"]) == (1, 3)
    assert skeleton.batch_size is None


class Renamed:
    """Changes the names of the signature's inputs, as other versions of TensorFlow do."""

    def __init__(self, rename):
        self.rename = rename

    def __call__(self, model):
        changed = TFLiteModel(convert_float(model))
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
    monkeypatch.setattr("tfptq.tflite.skeleton.convert_float", Renamed(rename))
    skeleton = skeleton_of(flipped)
    order = [skeleton.model.name(index) for index in skeleton.model.subgraph.inputs]
    assert order == ["serving_default_a.y:0", "serving_default_b.x:0"]
    assert [skeleton.model.name(skeleton.inputs[name]) for name in ("b.x", "a.y")] == order[::-1]
    batch = {name: RNG.normal(size=(4, 3)).astype(np.float32) for name in ("b.x", "a.y")}
    assert check_skeleton(skeleton, flipped, batch) < 1e-5


def test_inputs_without_a_signature(monkeypatch, flipped):
    def without_signature(model):
        changed = TFLiteModel(convert_float(model))
        changed.root.signatureDefs = None
        return changed.to_bytes()

    monkeypatch.setattr("tfptq.tflite.skeleton.convert_float", without_signature)
    skeleton = skeleton_of(flipped)
    assert skeleton.model.name(skeleton.inputs["b.x"]) == "serving_default_b.x:0"


@pytest.mark.parametrize("rename", [lambda name: f"args_{'ba'.index(name[0])}", lambda name: "a"])
def test_inputs_that_cannot_be_matched_are_refused(monkeypatch, flipped, rename):
    monkeypatch.setattr("tfptq.tflite.skeleton.convert_float", Renamed(rename))
    with pytest.raises(ValueError, match=r"cannot be matched with the model's, \['a.y', 'b.x'\]"):
        skeleton_of(flipped)


def test_windows(skeleton):
    windows = {binding.key[0]: skeleton.window(binding) for binding in skeleton.bindings}
    assert (windows["conv"].kernel, windows["conv"].strides, windows["conv"].padding) == ((3, 2), (2, 1), "same")
    assert windows["grouped"].groups == 2
    assert windows["depthwise"].groups == 6
    assert windows["transposed"].transposed
    assert windows["head"].kernel == windows["dense"].kernel == (1, 1)


def test_an_equal_file_is_accepted(skeleton, network, batch):
    assert check_skeleton(skeleton, network, batch) < 1e-5


def test_a_file_that_computes_something_else_is_refused(skeleton, network, batch):
    changed = keras.models.clone_model(network)
    changed.set_weights([weight * 1.01 for weight in network.get_weights()])
    with pytest.raises(FloatEqualityError, match="'network' differs from the Keras model by"):
        check_skeleton(skeleton, changed, batch)


def test_nan_outputs_are_refused(skeleton, network, batch):
    broken = {**batch, "b": np.full((4, 3), np.nan, np.float32)}
    with pytest.raises(FloatEqualityError, match="nan"):
        check_skeleton(skeleton, network, broken)


def test_nan_that_only_the_file_gives_is_explained():
    """XNNPACK divides by the length of a vector of zeros."""
    inputs = keras.Input((4,), name="x")
    keras.utils.set_random_seed(0)
    x = layers.UnitNormalization()(layers.Dense(4, activation="relu", name="before")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(FloatEqualityError, match="gives NaN where the Keras model gives numbers.*UnitNormalization"):
        check_skeleton(skeleton_of(model), model, {"x": np.zeros((2, 4), np.float32)})


def test_factors_that_the_converter_fuses():
    """A constant multiplication after a convolution disappears into the kernel."""
    inputs = keras.Input((4, 4, 2), name="x")
    factors = np.asarray([2.0, 0.5, -1.0], np.float32)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv")(inputs) * factors)
    skeleton = skeleton_of(model)
    (binding,) = skeleton.bindings
    assert binding.key == ("conv", "kernel")
    np.testing.assert_allclose(binding.row_factors, factors, rtol=1e-6)


def test_fixed_batches():
    inputs = keras.Input(batch_shape=(4, 3), name="x")
    skeleton = skeleton_of(keras.Model(inputs, layers.Dense(2, name="dense")(inputs)))
    assert skeleton.batch_size == 4


def test_recurrent_models_take_one_sample():
    inputs = keras.Input((5, 3), name="x")
    model = keras.Model(inputs, layers.GRU(2, name="memory")(inputs))
    assert build_skeleton(model, {}).batch_size == 1


def test_any_name_of_a_model_will_do():
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, {"y": layers.Dense(2, name="dense")(inputs)}, name="mein schönes Netz")
    assert list(build_skeleton(model, {}).inputs) == ["x"]


def test_the_converters_words_are_in_the_error():
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, layers.Lambda(lambda x: tf.math.betainc(x, x, x), name="beta")(inputs), name="odd")
    with pytest.raises(ValueError, match="(?s)cannot convert the model 'odd'.*Betainc.*Replace the layers it names"):
        convert_float(model)
