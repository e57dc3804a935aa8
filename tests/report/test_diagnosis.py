"""Results that are bad: each gives its finding and its warning, in the name of who called."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config

import tfptq
from tfptq.report.diagnosis import KINDS

RNG = np.random.default_rng(0)
IMAGES = RNG.random((32, 8, 8, 3)).astype(np.float32)


def network(dead=None, head=None):
    """Two convolutions and a head; ``dead`` names a layer that gives the same for all inputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    side = layers.Conv2D(8, 3, activation="relu", padding="same", name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, side]))
    model = keras.Model(inputs, (head or layers.Dense(4, name="head"))(x))
    if dead:
        kernel, bias = model.get_layer(dead).get_weights()
        model.get_layer(dead).set_weights([-np.abs(kernel), bias - 1.0])
    return model


def quantized(model, samples=IMAGES, config="w8a8_channel"):
    """The result, and the findings by kind; each must have given its warning, in this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = tfptq.quantize_keras_model(model, samples, config, progress=False)
    ours = [item for item in caught if item.category is tfptq.QuantizationWarning]
    assert [str(item.message) for item in ours] == list(result.report.warnings)
    assert all(item.filename == __file__ for item in ours)
    assert all(finding.kind in KINDS for finding in result.report.findings)
    return result, {finding.kind: finding for finding in result.report.findings}


def test_a_sound_result_has_none():
    result, found = quantized(network())
    assert not found and not result.report.constant_outputs
    assert re.fullmatch(
        r"<QuantizationResult of '\w+': 3 layers quantized with w8a8_channel, [\d,]+ bytes, [\d.]+x (smaller|larger) "
        r"than float, outputs [\d.]+ dB>",
        repr(result),
    )


def test_warnings_are_user_warnings_that_can_be_made_errors():
    assert issubclass(tfptq.QuantizationWarning, UserWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfptq.QuantizationWarning)
        with pytest.raises(tfptq.QuantizationWarning, match="calibration saw only 4 samples"):
            tfptq.quantize_keras_model(network(), IMAGES[:4], progress=False)


def test_a_dead_layer():
    _, found = quantized(network(dead="second"))
    assert list(found) == ["dead-layer"]
    assert found["dead-layer"].problem.startswith("layer 'second' has the same output for all samples")


def test_layers_behind_a_dead_one_and_the_output_are_constant():
    result, found = quantized(network(dead="first"))
    assert list(found) == ["constant-output", "dead-layer"]
    assert "3 layers ('first', 'second', 'head') have the same output" in found["dead-layer"].problem
    assert result.report.constant_outputs == ("output_0",)
    assert "constant outputs, 2 warnings" in repr(result) and " dB" not in repr(result)
    assert "output_0 constant" in result.report.render() and "exact" not in result.report.render()


@pytest.mark.parametrize(
    ("bias", "words"), [("zeros", "is 0 for all samples"), ("ones", "is the same for all samples")]
)
def test_a_constant_output(bias, words):
    head = layers.Dense(4, kernel_initializer="zeros", bias_initializer=bias, name="head")
    _, found = quantized(network(head=head))
    assert words in found["constant-output"].problem
    assert found["dead-layer"].problem == "all weights of layer 'head' are 0"


def test_an_output_that_is_constant_in_the_file_alone():
    head = layers.Dense(1, bias_initializer=keras.initializers.Constant(1e4))
    result, found = quantized(network(head=head))
    assert (
        "of the file is the same for all samples, and that of the float model is not"
        in found["constant-output"].problem
    )
    assert not result.report.constant_outputs


def test_a_lost_column():
    model = network()
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * np.float32([500, 500, 1, 500]), bias])
    result, found = quantized(model)
    assert "1 column too small for its grid beside others: 2 (" in found["lost-column"].problem
    ratios = result.report.columns["output_0"]
    assert ratios[2] < 6 < 20 < min(ratios[0], ratios[1], ratios[3])


def test_noisy_layers_and_what_to_try():
    samples = np.concatenate([IMAGES] * 5)
    config = plain_config(tfptq.PerTensor(), weight_bits=2, rounding="nearest", target="any")
    _, found = quantized(network(), samples, config)
    finding = found["noisy-layers"]
    assert re.search(r"layer '\w+' has a signal to noise of -?\d+\.\d dB", finding.problem)
    assert (
        "weight_bits=8" in finding.advice and "w8a8_channel" in finding.advice and "more samples" not in finding.advice
    )
    _, found = quantized(network(), IMAGES, config)
    assert "more samples" in found["noisy-layers"].advice


def test_effects_of_a_wrong_range_are_not_told_on_top():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Rescaling(1.0, 50.0)(layers.Conv2D(2, 3)(x)))
    _, found = quantized(model, IMAGES)
    assert list(found) == ["input-range"]


@pytest.mark.parametrize(
    ("activation", "bits", "problem", "advice"),
    [
        (
            "hard_swish",
            16,
            "2 operators in float (HARD_SWISH, MEAN): target 'npu' leaves them to a CPU, or refuses the file: "
            "HARD_SWISH has no kernel for 16-bit activations",
            "activation_bits=8 has integer kernels",
        ),
        ("mish", 8, "in float (", "Replace the layers that they are made of"),
    ],
)
def test_operators_that_an_npu_leaves_to_the_cpu(activation, bits, problem, advice):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation=activation)(inputs))
    model = keras.Model(inputs, layers.Dense(4)(x))
    config = tfptq.QuantizationConfig(tfptq.PerChannel(), target="npu", activation_bits=bits)
    _, found = quantized(model, config=config)
    assert list(found) == ["float-operators"]
    assert problem in found["float-operators"].problem and advice in found["float-operators"].advice
    _, found = quantized(model, config=config.replace(target="any"))
    assert not found


@pytest.mark.parametrize("activation", ["gelu", "hard_swish"])
def test_an_npu_has_integer_kernels_of_8_bits(activation):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation=activation)(inputs))
    _, found = quantized(
        keras.Model(inputs, layers.Dense(4)(x)), config=tfptq.QuantizationConfig(tfptq.PerChannel(), target="npu")
    )
    assert not found
