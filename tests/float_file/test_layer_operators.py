"""Layers that configs skip, and layers with equal weights, from the model to the file and its report."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from stock_runtimes import run_decoded, signal_to_noise

import tfptq
from tfptq import override
from tfptq.float_file.build import make_float_file
from tfptq.float_file.layer_operators import skipped_operators
from tfptq.float_file.operator_names import OperatorNames
from tfptq.tflite.model import TFLiteModel

RNG = np.random.default_rng(0)
SQUARE = keras.initializers.Constant(RNG.normal(size=(8, 8)) / 2)
VECTORS = RNG.normal(size=(64, 8)).astype(np.float32)
IMAGES = RNG.normal(size=(32, 8, 8, 3)).astype(np.float32)


def quantize(model, data, *overrides, **options):
    config = plain_config(tfptq.PerChannel(), edge_bits=None, overrides=overrides, **options)
    return tfptq.quantize_keras_model(model, data, config, progress=False)


def check_agreement(model, result, data, decibels):
    """The float model, the file and the simulation compute the same, up to noise."""
    expected, (name,) = np.asarray(model(data)), [tensor.name for tensor in model.inputs]
    found = run_decoded(result.tflite, {name: data})["output_0"]
    assert signal_to_noise(expected, found) > decibels
    assert signal_to_noise(found, np.asarray(result.keras_model(data))) > max(decibels, 25)


def twins(initializer=SQUARE, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="vector")
    x = layers.Dense(8, activation="relu", kernel_initializer=initializer, name="one", **options)(inputs)
    x = layers.Dense(8, kernel_initializer=initializer, name="two", **options)(x)
    return keras.Model(inputs, layers.Dense(3, name="out")(x))


@pytest.mark.parametrize("skipped", ["one", "two"])
def test_one_of_two_equal_layers_is_skipped(skipped):
    model = twins()
    result = quantize(model, VECTORS, override(skipped, skip=True))
    other = {"one": "two", "two": "one"}[skipped]
    assert [item.name for item in result.report.layers] == [other, "out"]
    assert [(item.name, item.reason) for item in result.report.skipped] == [(skipped, "the config skips it")]
    assert not result.report.unfitted
    (left,) = result.report.float_operators
    assert f"/{skipped}_1/" in left.tensor
    check_agreement(model, result, VECTORS, 30)


@pytest.mark.parametrize("coarse", ["one", "two"])
def test_equal_layers_with_other_bits(coarse):
    model = twins()
    result = quantize(model, VECTORS, override(coarse, weight_bits=4, layout="int8"))
    bits = {item.name: item.bits for item in result.report.layers}
    assert bits == {"one": 8, "two": 8, "out": 8} | {coarse: 4}
    file = TFLiteModel(result.tflite)
    largest = [
        int(np.abs(file.constant(operator.inputs[1])).max()) for operator in file.operators if operator.inputs[1:]
    ]
    assert [value <= 8 for value in largest[:2]] == [coarse == "one", coarse == "two"]
    check_agreement(model, result, VECTORS, 10)


def test_equal_layers_have_their_own_bias_corrections():
    model = twins(bias_initializer="ones")
    result = quantize(model, VECTORS, weight_bits=3, layout="int8")
    layer = result.keras_model.layers
    shifts = {item.layer.name: np.asarray(item.layer.bias) - 1.0 for item in layer if hasattr(item, "layer")}
    assert all(np.abs(shifts[name]).max() > 0 for name in ("one", "two"))
    assert np.abs(shifts["one"] - shifts["two"]).max() > 0


@pytest.mark.parametrize("skipped", ["one", "two"])
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_equal_kernels_in_parallel_branches(kind, skipped):
    def branch(name, x):
        blur = keras.initializers.Constant(1 / 9)
        if kind == "conv":
            return layers.Conv2D(3, 3, kernel_initializer=blur, name=name)(x)
        return layers.DepthwiseConv2D(3, depthwise_initializer=blur, name=name)(x)

    inputs = keras.Input((8, 8, 3), name="image")
    two = branch("two", layers.ReLU()(inputs))
    model = keras.Model(inputs, layers.Concatenate()([branch("one", inputs), two]))
    result = quantize(model, IMAGES, override(skipped, skip=True))
    assert [item.name for item in result.report.layers] == [{"one": "two", "two": "one"}[skipped]]
    assert [item.name for item in result.report.skipped] == [skipped]
    (left,) = (item for item in result.report.float_operators if "CONV_2D" in item.operator)
    assert left.reason == f"the config skips layer {skipped!r}" and f"/{skipped}_1/" in left.tensor
    check_agreement(model, result, IMAGES, 25)


def test_zero_kernels():
    model = twins("zeros", bias_initializer="ones")
    result = quantize(model, VECTORS, override("two", skip=True))
    assert [item.name for item in result.report.layers] == ["one", "out"]
    assert [item.name for item in result.report.skipped] == ["two"]
    assert [item.reason for item in result.report.float_operators] == ["the config skips layer 'two'"]
    check_agreement(model, result, VECTORS, 30)


@keras.saving.register_keras_serializable("test_skipping")
class Standardised(layers.Conv2D):
    """A convolution whose kernel in the file is none of its weights."""

    def call(self, inputs):
        kernel = self.kernel - keras.ops.mean(self.kernel, (0, 1, 2))
        kernel = kernel / keras.ops.std(self.kernel, (0, 1, 2))
        return self.activation(keras.ops.conv(inputs, kernel, padding="valid") + self.bias)


def standardised():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = Standardised(4, 3, activation="relu", name="std")(inputs)
    x = Standardised(4, 3, activation="relu", name="std_1")(x)
    return keras.Model(inputs, layers.Conv2D(3, 1, name="head")(x))


@pytest.mark.parametrize("skipped", ["std", "std_1"])
def test_a_layer_whose_kernel_is_not_found_is_skipped_by_its_name(skipped):
    model = standardised()
    result = quantize(model, IMAGES, override(skipped, skip=True))
    report, other = result.report, {"std": "std_1", "std_1": "std"}[skipped]
    assert [(item.name, item.reason) for item in report.skipped] == [(skipped, "the config skips it")]
    assert not report.unfitted  # its kernel goes by the path in the file
    assert {item.name: item.type for item in report.layers}[other] == "kernel of the file"
    (left,) = report.float_operators
    assert left.reason == f"the config skips layer {skipped!r}"
    check_agreement(model, result, IMAGES, 25)


def test_a_skip_that_cannot_be_applied_is_refused():
    model = standardised()
    float_file = make_float_file(model, {})
    config = plain_config(overrides=(override("std", skip=True),))
    names = OperatorNames(float_file, [layer.name for layer in model.layers])
    assert list(skipped_operators(float_file, model, config, names)) == [0]
    for tensor in float_file.model.tensors:
        tensor.name = b"nameless"
    with pytest.raises(ValueError, match=r"skips layer 'std' \(Standardised\), but the converted file has neither"):
        skipped_operators(float_file, model, config, OperatorNames(float_file, ["std"]))


def test_layers_that_compute_on_integers_are_not_left_in_float():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2, 8, 8, 3), name="images")
    x = layers.TimeDistributed(layers.Conv2D(4, 3), name="unknown")(inputs)
    x = layers.Reshape((12, 6, 4))(x)
    x = layers.PReLU(name="slope", alpha_initializer="normal")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))
    report = quantize(model, np.stack([IMAGES, IMAGES[::-1]], axis=1)).report
    assert not report.float_operators and not report.skipped
    assert [(item.name, item.type) for item in report.unfitted] == [("slope", "PReLU")]
    assert report.layers[0].name.startswith("unknown")
    assert "left in float" not in report.render()
    assert "slope (PReLU): tfptq has no quantization for PReLU; its constants are integers" in report.render()


def test_embeddings_are_looked_up_on_integers():
    inputs = keras.Input((5,), name="numbers")
    x = layers.Embedding(10, 4, name="table")(inputs)
    report = quantize(keras.Model(inputs, layers.Dense(3, name="head")(x)), np.ones((16, 5), np.float32)).report
    assert not report.skipped and "GATHER" not in [item.operator for item in report.float_operators]
    assert [item.name for item in report.unfitted] == ["table"]
