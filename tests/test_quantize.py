"""``quantize_keras_model`` from end to end: files, simulations, reports and what may differ from model to model."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from plain_config import plain_config
from small_network import SAMPLES, quantize, random_images, three_kernels
from stock_runtimes import RESOLVERS, RUNTIMES, details, run, run_decoded, signal_to_noise

import tfptq
from tfptq.layers import wrappers
from tfptq.tflite.metadata import read
from tfptq.tflite.model import TFLiteModel

PRESETS = ("w8a8_layer", "w8a8_channel", "w8a8_shift")


@pytest.fixture(scope="module")
def images():
    return random_images()


@pytest.fixture(scope="module")
def model():
    return three_kernels()


@pytest.fixture(scope="module")
def results(model, images):
    return {preset: quantize(model, images, preset) for preset in PRESETS}


def predictions(result, inputs):
    return np.asarray(result.keras_model(inputs))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_file_holds_the_codes_of_the_simulation(results, preset):
    result = results[preset]
    file = TFLiteModel(result.tflite)
    blocks = {item.layer: item for item in read(result.tflite).tensors}
    assert set(blocks) == {"conv", "depthwise", "logits"}
    for wrapper in wrappers(result.keras_model):
        (quantized,) = wrapper.quantized_weights
        weight, item = quantized.quantized_weight(), blocks[wrapper.layer.name]
        stored = file.constant(item.tensor)
        np.testing.assert_array_equal(item.view.to_view(stored), weight.codes)
        scales = np.broadcast_to(file.tensors[item.tensor].quantization.scale, len(weight.codes))
        np.testing.assert_allclose(scales, weight.scale_per_weight[:, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_files_are_valid_and_explain_themselves(results, preset):
    result = results[preset]
    tfptq.verify(result.tflite)
    found = tfptq.inspect(result.tflite)
    assert found.seed == 0
    assert tfptq.QuantizationConfig.from_compact_json(read(result.tflite).config) == result.config
    assert tfptq.QuantizationConfig.from_json(json.dumps(found.config)) == result.config
    kind = {"w8a8_layer": "tensor", "w8a8_channel": "channel", "w8a8_shift": "tensor + shifts"}[preset]
    assert {layer.granularity for layer in result.report.layers} == {kind}
    assert {row.layer for row in found.weights} == {"conv", "depthwise", "logits"}
    assert ("WES" in {row.scales for row in found.weights}) == (preset == "w8a8_shift")


def test_shifts_rescue_small_channels(model, images, results):
    expected = np.asarray(model(images))
    noise = {
        preset: signal_to_noise(expected, run_decoded(results[preset].tflite, {"image": images})["output_0"])
        for preset in PRESETS
    }
    assert noise["w8a8_shift"] > 30
    assert noise["w8a8_channel"] > 30


@pytest.mark.parametrize("preset", PRESETS)
def test_the_simulation_predicts_what_the_file_computes(results, images, preset):
    result = results[preset]
    outputs = run_decoded(result.tflite, {"image": images})["output_0"]
    simulated = result.keras_model.predict(images, verbose=0)
    assert signal_to_noise(outputs, simulated) > 35


def test_the_simulation_survives_saving(results, images, tmp_path):
    result = results["w8a8_shift"]
    result.keras_model.save(tmp_path / "simulation.keras")
    loaded = keras.models.load_model(tmp_path / "simulation.keras")
    np.testing.assert_array_equal(np.asarray(loaded(images)), predictions(result, images))
    for old, new in zip(wrappers(result.keras_model), wrappers(loaded), strict=True):
        np.testing.assert_array_equal(
            new.quantized_weights[0].quantized_weight().codes, old.quantized_weights[0].quantized_weight().codes
        )


def test_same_inputs_give_same_bytes(model, images, results):
    assert quantize(model, images).tflite == results["w8a8_shift"].tflite


def test_any_number_of_samples_at_once(results, images):
    data = results["w8a8_shift"].tflite
    whole = run(data, {"image": images})["output_0"]
    for size in (1, 3):
        np.testing.assert_array_equal(run(data, {"image": images[:size]})["output_0"], whole[:size])


def test_save_writes_the_file_that_the_result_tells_of_in_a_line(results, tmp_path):
    size = len(results["w8a8_layer"].tflite)
    assert f" layers quantized with w8a8_layer, {size:,} bytes, " in repr(results["w8a8_layer"])
    path = results["w8a8_shift"].save(tmp_path / "model.tflite")
    assert path.read_bytes() == results["w8a8_shift"].tflite
    results["w8a8_layer"].save(path)
    assert path.read_bytes() == results["w8a8_layer"].tflite
    assert [item.name for item in tmp_path.iterdir()] == ["model.tflite"]


def test_runtimes_agree_as_on_the_converters_file(digits_convnet, digits):
    """Rounding of XNNPACK and of the optimized kernels differs from the reference by a step for each layer."""
    result = quantize(digits_convnet, digits.x_train[:64], input_type="int8", output_type="int8")
    converter = tf.lite.TFLiteConverter.from_keras_model(digits_convnet)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in digits.x_train[:64])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    ours, theirs = (largest_step(data, digits.x_test) for data in (result.tflite, converter.convert()))
    assert ours <= max(theirs, 2)


def largest_step(data, images):
    """Largest difference of all runtimes from the reference kernels, in steps of the output's grid."""
    (name,) = details(data)[0]
    places = [(resolver, runtime) for runtime in RUNTIMES for resolver in RESOLVERS]
    outputs = [run(data, {name: images}, *place)["output_0"].astype(int) for place in places]
    return max(np.abs(found - outputs[-1]).max() for found in outputs)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_trained_network_keeps_its_accuracy(digits_convnet, digits, preset):
    result = quantize(digits_convnet, digits.x_train[:128], preset)
    found = run_decoded(result.tflite, {"image": digits.x_test})["output_0"].argmax(axis=1)
    expected = digits_convnet.predict(digits.x_test, verbose=0).argmax(axis=1)
    assert (found == digits.y_test).mean() >= (expected == digits.y_test).mean() - 0.01
    assert (found == expected).mean() > 0.98
    assert not result.report.float_operators


def test_shared_layers_have_one_kernel(images):
    inputs = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", bias_initializer="normal", name="shared")
    model = keras.Model(inputs, shared(layers.ReLU()(shared(inputs))))
    result = quantize(model, images)
    (blocks,) = read(result.tflite).tensors
    file = TFLiteModel(result.tflite)
    kernels = [operator.inputs[1] for operator in file.operators if file.operator_name(operator) == "CONV_2D"]
    assert kernels == [blocks.tensor] * 2
    expected = np.asarray(model(images))
    assert signal_to_noise(expected, run_decoded(result.tflite, {"image": images})["output_0"]) > 28
    assert signal_to_noise(expected, predictions(result, images)) > 28


@pytest.mark.parametrize("factor", [3.0, -0.5])
def test_shared_layers_whose_uses_the_converter_scales(images, factor):
    """The converter fuses the factor into the second kernel, which then is no weight of Keras any more."""
    inputs = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", bias_initializer="normal", name="shared")
    model = keras.Model(inputs, shared(factor * layers.ReLU()(shared(inputs))))
    result = quantize(model, images)
    assert [item.name for item in result.report.layers] == ["shared"]
    expected = np.asarray(model(images))
    assert signal_to_noise(expected, run_decoded(result.tflite, {"image": images})["output_0"]) > 28


def test_overrides_for_single_layers(model, images):
    overrides = (
        tfptq.override("logits", granularity=tfptq.PerChannel(), scaler="float"),
        tfptq.override("depth*", skip=True),
    )
    result = quantize(model, images, overrides=overrides)
    by_name = {item.name: item for item in result.report.layers}
    assert set(by_name) == {"conv", "logits"}
    assert by_name["logits"].granularity == "channel"
    assert by_name["conv"].granularity == "tensor + shifts"
    (skipped,) = result.report.skipped
    assert skipped.name == "depthwise"
    assert "config skips" in skipped.reason
    assert [item.operator for item in result.report.float_operators] == ["DEPTHWISE_CONV_2D", "MEAN"]
    expected = np.asarray(model(images))
    assert signal_to_noise(expected, run_decoded(result.tflite, {"image": images})["output_0"]) > 30


def test_a_pattern_without_layers_is_refused(model, images):
    with pytest.raises(ValueError, match="'lgits'.*matches no weighted layer; there are: conv, depthwise, logits"):
        quantize(model, images, overrides=(tfptq.override("lgits", weight_bits=4),))


def test_bias_correction_takes_out_the_mean_error(model, images):
    errors = {}
    for corrected in (True, False):
        config = plain_config(
            tfptq.PerTensor(), weight_bits=4, edge_bits=None, bias_correction=corrected, layout="int8"
        )
        result = quantize(model, images, config)
        found = run_decoded(result.tflite, {"image": images})["output_0"]
        errors[corrected] = np.abs((found - np.asarray(model(images))).mean(axis=0)).mean()
    assert errors[True] < 0.7 * errors[False]


def test_the_report_tells_what_was_done(results, model):
    report = results["w8a8_shift"].report
    assert [(item.name, item.type, item.bits) for item in report.layers] == [
        ("conv", "Conv2D", 8),
        ("depthwise", "DepthwiseConv2D", 8),
        ("logits", "Dense", 8),
    ]
    assert report.model_name == "network"
    assert report.preset == "w8a8_shift"
    assert report.samples == SAMPLES
    assert report.file_bytes == len(results["w8a8_shift"].tflite)
    assert all(item.weight_snr_db > 30 and item.output_snr_db > 30 for item in report.layers)
    assert all(item.bytes_before > 2 * item.bytes_after for item in report.layers)
    assert set(report.float_differences) == {"canonicalise", "convert"}
    assert max(report.float_differences.values()) < 1e-5
    assert not report.skipped
    assert not report.float_operators
    assert "depthwise" in report.render()
