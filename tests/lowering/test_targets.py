"""Files for each target, on small networks of the kinds that there are: what lies where, and what runs them."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers
from micro_runtime import micro_differences, operators, run_micro
from plain_config import plain_config
from stock_runtimes import RESOLVERS, details, in_one_partition, run, run_decoded, signal_to_noise

import tfptq
from tfptq.config import TARGETS, PerChannel
from tfptq.tflite.model import TFLiteModel

PACKED = {schema.TensorType.INT2: 2, schema.TensorType.INT4: 4}
CHANNEL4 = plain_config(PerChannel(), weight_bits=4, latency_budget=100.0)


def mobile():
    """As MobileNet: a stem, two depthwise and pointwise pairs with a shortcut, and a classifier."""
    inputs = keras.Input((12, 12, 3), name="x")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6", name="stem")(inputs)
    for number in (1, 2):
        y = layers.Conv2D(24, 1, activation="relu6", name=f"expand_{number}")(x)
        y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name=f"depthwise_{number}")(y)
        x = layers.Add()([x, layers.Conv2D(8, 1, name=f"project_{number}")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="mobile")


def residual():
    """As ResNet: k x k convolutions with shortcuts."""
    inputs = keras.Input((8, 8, 4), name="x")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="first")(x)
    y = layers.Conv2D(16, 3, padding="same", name="second")(y)
    x = layers.ReLU()(layers.Add()([y, layers.Conv2D(16, 1, strides=2, name="shortcut")(x)]))
    return keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="residual")


def dense():
    inputs = keras.Input((32,), name="x")
    x = layers.Dense(24, activation="relu", name="first")(inputs)
    return keras.Model(inputs, layers.Dense(32, name="second")(x), name="dense")


def sequence():
    inputs = keras.Input((16, 6), name="x")
    x = layers.Conv1D(8, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv1D(12, 5, strides=2, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="sequence")


def attention():
    inputs = keras.Input((6, 16), name="x")
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 8, name="attention")(inputs, inputs)])
    x = layers.Dense(16, activation="relu", name="inner")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="attention")


def decoder():
    inputs = keras.Input((4, 4, 6), name="x")
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu", name="up")(inputs)
    return keras.Model(inputs, layers.Conv2D(8, 1, name="pixels")(x), name="decoder")


NETWORKS = {build.__name__: build for build in (mobile, residual, dense, sequence, attention, decoder)}
_RESULTS = {}


def result_of(name, target):
    """(result, samples, outputs of the float model) of a network for a target, made once."""
    if (name, target) not in _RESULTS:
        keras.utils.set_random_seed(3)
        model = NETWORKS[name]()
        x = np.random.default_rng(0).normal(size=(24, *model.input_shape[1:])).astype(np.float32)
        result = tfptq.quantize_keras_model(model, x, CHANNEL4.replace(target=target), progress=False)
        _RESULTS[name, target] = result, x, model.predict(x, verbose=0)
    return _RESULTS[name, target]


def packed_operators(data):
    """Kind of each operator that reads packed codes -> the bits of these."""
    model, found = TFLiteModel(data), {}
    for operator in model.operators:
        for index in operator.inputs:
            if index >= 0 and (bits := PACKED.get(model.tensors[index].type)):
                found.setdefault(model.operator_name(operator), set()).add(bits)
    return found


ALL = pytest.mark.parametrize("name", NETWORKS)


@ALL
@pytest.mark.parametrize("target", TARGETS)
def test_files_are_near_the_float_model(name, target):
    result, x, expected = result_of(name, target)
    assert tfptq.verify(result.tflite).checks
    found = np.concatenate([run_decoded(result.tflite, {"x": x[at : at + 1]})["output_0"] for at in range(len(x))])
    assert signal_to_noise(expected, found) > 12.0
    assert signal_to_noise(result.keras_model.predict(x, verbose=0), found) > 25.0


@ALL
@pytest.mark.parametrize("target", TARGETS)
def test_layers_have_8_bits_where_the_target_takes_the_bytes_anyway(name, target):
    result, _, _ = result_of(name, target)
    for layer in result.report.layers:
        if not TARGETS[target].narrow_int8:
            assert (layer.bits == 8) == (layer.layout == "int8"), layer.name
        else:
            assert layer.layout == "int8"


@ALL
def test_cpu_files_have_products_of_packed_codes_only(name):
    result, x, _ = result_of(name, "cpu")
    assert set(packed_operators(result.tflite)) == {"FULLY_CONNECTED"}
    inputs, outputs = details(result.tflite)
    assert inputs["x"]["shape_signature"][0] == -1
    assert {each["x" if "x" in each else "output_0"]["dtype"] for each in (inputs, outputs)} == {np.float32}
    if name in ("mobile", "residual", "dense"):
        assert in_one_partition(result.tflite, x[:1].shape)


@ALL
@pytest.mark.parametrize("target", ["web", "micro", "npu"])
def test_targets_of_one_sample(name, target):
    result, _, _ = result_of(name, target)
    inputs, outputs = details(result.tflite)
    assert inputs["x"]["shape_signature"][0] == outputs["output_0"]["shape_signature"][0] == 1
    dtype = np.float32 if target == "web" else np.int8
    assert inputs["x"]["dtype"] == outputs["output_0"]["dtype"] == dtype
    assert not {"SHAPE", "PACK", "STRIDED_SLICE"}.intersection(operators(result.tflite))
    if target != "micro":
        assert not packed_operators(result.tflite)


@ALL
def test_micro_files_have_packed_convolutions_only(name):
    result, _, _ = result_of(name, "micro")
    found = packed_operators(result.tflite)
    assert all(types == {4} for types in found.values())
    assert set(found) <= {"CONV_2D", "DEPTHWISE_CONV_2D"}
    convolutions = {"CONV_2D", "DEPTHWISE_CONV_2D"}.intersection(operators(result.tflite))
    assert set(found) == convolutions


@ALL
def test_micro_files_run_in_tflite_micro(name):
    """As LiteRT's reference kernels; only FULLY_CONNECTED is rounded otherwise, by a step at most."""
    result, x, _ = result_of(name, "micro")
    reference = np.concatenate([run(result.tflite, {"x": x[at : at + 1]}, "REF")["output_0"] for at in range(len(x))])
    micro = run_micro(result.tflite, x)
    assert micro.shape == reference.shape and micro.dtype == np.int8
    products = operators(result.tflite).count("FULLY_CONNECTED")
    assert np.abs(micro.astype(int) - reference).max() <= min(products, 2)
    for sample in x[:4]:
        differences = micro_differences(result.tflite, sample[None])
        assert all(steps <= (kind == "FULLY_CONNECTED") for kind, steps in differences)


def test_operators_that_a_target_lacks_are_told():
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(8, activation="gelu", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="last")(x))
    x = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    lines = {}
    for target in ("micro", "cpu"):
        result = tfptq.quantize_keras_model(model, x, plain_config(target=target), progress=False)
        lines[target] = [line for line in result.report.notes if "no kernel for" in line]
        assert "GELU" in operators(result.tflite)
    assert lines == {"micro": ["target 'micro' has no kernel for GELU, which the file holds"], "cpu": []}


def test_what_a_target_makes_of_the_widths_is_told():
    (line,) = (it for it in result_of("mobile", "cpu")[0].report.notes if "kernels have 8 bits" in it)
    assert line.startswith("4 of 8 kernels have 8 bits: target 'cpu' stores them in INT8")
    for name, target in (("mobile", "any"), ("dense", "cpu")):
        assert not any("kernels have 8 bits" in it for it in result_of(name, target)[0].report.notes)


@pytest.mark.parametrize("preset", ["w4a8_mixed", "w2_mixed"])
def test_presets_with_a_ratio_take_any_network(preset):
    """Most of this one lies in a depthwise kernel, which XNNPACK reads in INT8 only."""
    inputs = keras.Input((6, 6, 32), name="x")
    x = layers.DepthwiseConv2D(5, activation="relu", name="deep")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="last")(layers.Flatten()(x)))
    data = np.random.default_rng(0).normal(size=(24, 6, 6, 32)).astype(np.float32)
    report = tfptq.quantize_keras_model(model, data, preset, progress=False).report
    (line,) = (line for line in report.notes if "mixed_precision.ratio" in line)
    assert "of their bytes in INT8" in line and "target 'cpu' has no smaller layouts" in line
    assert {layer.name: layer.bits for layer in report.layers}["deep"] == 8


@pytest.mark.parametrize("target", ["cpu", "micro", "web"])
def test_reports_on_files_of_one_sample_look_at_several(target):
    """The one output of one sample has no range: all is noise beside it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    hidden = layers.Dense(16, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(1, name="value")(hidden))
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    config = plain_config(PerChannel(), target=target)
    report = tfptq.quantize_keras_model(model, x, config, progress=False).report
    assert report.outputs["output_0"] > 30.0
    assert all(layer.output_snr_db > 30.0 for layer in report.layers)


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_the_batch_of_a_model_stays(resolver):
    inputs = keras.Input((8,), batch_size=4, name="x")
    model = keras.Model(inputs, layers.Dense(6, name="first")(inputs))
    x = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, x, CHANNEL4.replace(target="micro"), progress=False)
    assert run(result.tflite, {"x": x[:4]}, resolver)["output_0"].shape == (4, 6)
