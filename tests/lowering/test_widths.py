"""Files in which some operators have 16-bit activations and the others 8."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

import tfptq
from tfptq import override
from tfptq.tflite.model import TFLiteModel

CONFIG = tfptq.QuantizationConfig.from_preset("w8a8_channel")
SAMPLES = np.random.default_rng(0).normal(size=(48, 12, 12, 3)).astype(np.float32)


def network():
    """Two branches that are joined, a sum, a pooled head and probabilities."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="x")
    stem = layers.Conv2D(8, 3, activation="relu", padding="same", name="stem")(inputs)
    deep = layers.DepthwiseConv2D(3, padding="same", name="deep")(stem)
    joined = layers.Concatenate(name="joined")([layers.MaxPooling2D(name="pool")(stem), layers.MaxPooling2D()(deep)])
    point = layers.Conv2D(16, 1, name="point")(joined)
    summed = layers.Add(name="summed")([point, joined])
    head = layers.Dense(6, name="head")(layers.GlobalAveragePooling2D(name="mean")(summed))
    return keras.Model(inputs, layers.Softmax(name="probs")(head))


def quantize(*patterns, bits=16, **changes):
    overrides = [override(pattern, activation_bits=bits) for pattern in patterns]
    return tfptq.quantize_keras_model(
        network(), SAMPLES, CONFIG.replace(overrides=overrides, **changes), progress=False
    )


def types_of(result):
    """Kinds of operators -> types of their results, without conversions."""
    model = TFLiteModel(result.tflite)
    names = {0: "float", 7: "int16", 9: "int8"}
    found = {}
    for operator in model.operators:
        kind = model.operator_name(operator)
        if kind not in ("QUANTIZE", "DEQUANTIZE"):
            found.setdefault(kind, []).append(names[model.tensors[operator.outputs[0]].type])
    return found


def outputs_of(content, resolver=OpResolverType.AUTO):
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(entry["index"], SAMPLES.shape)
    interpreter.allocate_tensors()
    scale, zero = entry["quantization"]
    codes = SAMPLES if not scale else np.clip(np.rint(SAMPLES / scale) + zero, -128, 127).astype(entry["dtype"])
    interpreter.set_tensor(entry["index"], codes)
    interpreter.invoke()
    found, (scale, zero) = interpreter.get_tensor(result["index"]), result["quantization"]
    return scale * (found.astype(np.float32) - zero) if scale else found


@pytest.mark.parametrize(
    "patterns",
    [
        ("head",),
        ("stem", "deep"),
        ("joined",),
        ("pool", "summed"),
        ("probs",),
        ("point", "mean", "head", "probs"),
        ("*",),
    ],
)
def test_some_operators_have_16_bits(patterns):
    expected = np.asarray(network()(SAMPLES))
    result, plain = quantize(*patterns), quantize()
    wide = sum(kinds.count("int16") for kinds in types_of(result).values())
    assert wide and (patterns == ("*",) or sum(kinds.count("int8") for kinds in types_of(result).values()))
    assert not result.report.float_operators
    # The largest error is that of a single value, and jumps by a step of the output.
    error, error_of_plain = (np.square(outputs_of(it.tflite) - expected).mean() ** 0.5 for it in (result, plain))
    assert error < 1.15 * error_of_plain
    # Stock kernels agree, and what the file says of itself holds.
    reference = outputs_of(result.tflite, OpResolverType.BUILTIN_REF)
    np.testing.assert_allclose(outputs_of(result.tflite), reference, atol=3 / 256)
    tfptq.verify(result.tflite)


def test_16_bits_behind_a_coarse_input_make_the_end_exact():
    names = ("stem", "deep", "pool", "joined", "point", "summed", "mean", "head")
    expected = np.asarray(network()(SAMPLES))
    errors = {bits: np.abs(outputs_of(quantize(*names, bits=bits).tflite) - expected).max() for bits in (8, 16)}
    assert errors[16] < errors[8]
    assert types_of(quantize(*names))["SOFTMAX"] == ["int8"]


@pytest.mark.parametrize("patterns", [("stem",), ("probs", "head")])
def test_integer_ends_keep_the_width_of_the_model(patterns):
    result = quantize(*patterns, input_type="int8", output_type="int8")
    interpreter = Interpreter(model_content=result.tflite)
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]
    expected = np.asarray(network()(SAMPLES))
    assert np.abs(outputs_of(result.tflite) - expected).max() < 0.05


def test_8_bits_in_a_file_of_16():
    result = quantize("point", bits=8, activation_bits=16)
    assert types_of(result)["CONV_2D"] == ["int16", "int8"]
    expected = np.asarray(network()(SAMPLES))
    assert np.abs(outputs_of(result.tflite) - expected).max() < 0.02


def test_operators_without_16_bit_kernels_stay_in_float_and_are_listed():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), name="x")
    outputs = layers.Dense(4, name="head")(layers.Activation("hard_swish", name="act")(layers.Flatten()(inputs)))
    config = CONFIG.replace(overrides=[override("act", activation_bits=16)])
    report = tfptq.quantize_keras_model(keras.Model(inputs, outputs), SAMPLES, config, progress=False).report
    reasons = [item.reason for item in report.float_operators]
    assert "HARD_SWISH has no kernel for 16-bit activations" in reasons


def test_simulations_of_mixed_widths_are_exported():
    result = quantize("head")
    again = tfptq.export_simulation(result.keras_model, SAMPLES, progress=False)
    assert types_of(again)["FULLY_CONNECTED"] == types_of(result)["FULLY_CONNECTED"] == ["int16"]
    assert types_of(again)["CONV_2D"] == ["int8", "int8"]
