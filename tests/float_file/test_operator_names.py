"""Overrides and ``tail`` reach operators and tensors of the float file by name."""

import keras
import numpy as np
import pytest
from keras import layers

import tfptq
from tfptq import override

CONFIG = tfptq.QuantizationConfig.from_preset("w8a8_channel")
SAMPLES = np.random.default_rng(0).normal(size=(48, 12, 12, 3)).astype(np.float32)


def detector():
    """A backbone, a head for boxes and one for scores, whose results are decoded."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="x")
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="deep")(x)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    boxes = layers.Dense(4, name="boxes")(features)
    scores = layers.Dense(3, name="logits")(features)
    return keras.Model(inputs, [layers.Activation("tanh", name="decode")(boxes), layers.Softmax(name="scores")(scores)])


def quantize(source, **changes):
    return tfptq.quantize(source, SAMPLES, CONFIG.replace(**changes), progress=False)


def in_float(result):
    return sorted(item.operator for item in result.report.float_operators)


def outputs_of(model):
    return [np.asarray(value) for value in model(SAMPLES, training=False)]


def test_a_tail_from_a_layer_on():
    model = detector()
    result = quantize(model, tail="features")
    assert in_float(result) == ["FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX", "TANH"]
    assert {layer.name for layer in result.report.layers} == {"stem", "deep"}
    assert all("lies behind 'features'" in item.reason for item in result.report.float_operators)
    assert {layer.name for layer in tfptq.layers.wrappers(result.keras_model)} == {"quant_stem", "quant_deep"}
    assert min(result.report.outputs.values()) > 25
    simulated = [np.asarray(value) for value in result.keras_model(SAMPLES, training=False)]
    for expected, values in zip(outputs_of(model), simulated, strict=True):
        assert np.abs(expected - values).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize(("tail", "left"), [("boxes", ["TANH"]), (["boxes", "logits"], ["SOFTMAX", "TANH"])])
def test_tails_of_single_branches(tail, left):
    assert in_float(quantize(detector(), tail=tail)) == left


def test_a_tail_of_a_file_is_named_by_a_tensor():
    whole = quantize(detector())
    content = whole.float_tflite
    (mean,) = {
        item.tensor for item in quantize(content, overrides=[override("*Mean", skip=True)]).report.float_operators
    }
    for name in (mean, "features/Mean", "*/Mean"):
        assert in_float(quantize(content, tail=name)) == ["FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX", "TANH"]


def test_an_override_leaves_an_operator_without_kernel_in_float():
    model = detector()
    result = quantize(model, overrides=[override("scores", skip=True)])
    assert [(item.operator, item.reason) for item in result.report.float_operators] == [
        ("SOFTMAX", "the config skips 'scores'")
    ]
    assert len(result.report.layers) == 4
    everything = quantize(model, overrides=[override("*", skip=True), override("stem", skip=False)])
    assert {layer.name for layer in everything.report.layers} == {"stem"}
    assert in_float(everything) == ["CONV_2D", "FULLY_CONNECTED", "FULLY_CONNECTED", "MEAN", "SOFTMAX", "TANH"]


def test_names_that_nothing_has():
    with pytest.raises(ValueError, match="tail='boxs' covers no tensor of the float file; there are: 'x', "):
        quantize(detector(), tail="boxs")
    with pytest.raises(ValueError, match="'nothing' matches no weighted layer"):
        quantize(detector(), overrides=[override("nothing", skip=True)])
    with pytest.raises(ValueError, match="'scores' matches no weighted layer"):
        quantize(detector(), overrides=[override("scores", weight_bits=4)])
    with pytest.raises(ValueError, match="leaves nothing to quantize"):
        quantize(detector(), tail="x")


def test_a_tail_is_stored_with_the_config():
    config = CONFIG.replace(tail=["boxes"])
    assert config.tail == ("boxes",) and tfptq.QuantizationConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="tail"):
        CONFIG.replace(tail=3)
