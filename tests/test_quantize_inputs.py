"""Inputs, outputs, samples and batches of ``quantize_keras_model``."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from small_network import SAMPLES, quantize, random_images, three_kernels
from stock_runtimes import RESOLVERS, details, run_decoded, signal_to_noise

import tfptq
from tfptq.tflite.model import TFLiteModel


@pytest.fixture(scope="module")
def images():
    return random_images()


@pytest.fixture(scope="module")
def model():
    return three_kernels()


@pytest.fixture(scope="module")
def default(model, images):
    """The file of the default preset."""
    return quantize(model, images).tflite


@pytest.mark.parametrize("outer", ["float32", "int8", "uint8"])
def test_types_of_inputs_and_outputs(model, images, outer):
    inner = quantize(model, images, input_type="int8", output_type="int8").tflite
    data = quantize(model, images, input_type=outer, output_type=outer).tflite
    inputs, outputs = details(data)
    assert list(inputs) == ["image"]
    assert list(outputs) == ["output_0"]
    assert inputs["image"]["dtype"] == outputs["output_0"]["dtype"] == np.dtype(outer)
    if outer == "uint8":
        for found, expected in zip(details(data), details(inner), strict=True):
            for name, detail in found.items():
                scale, zero_point = expected[name]["quantization"]
                assert detail["quantization"] == (scale, zero_point + 128)
    found, expected = (run_decoded(file, {"image": images})["output_0"] for file in (data, inner))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_several_inputs_and_outputs_keep_their_names(images):
    a, b = keras.Input((8, 8, 3), name="left"), keras.Input((4,), name="right")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="conv")(a))
    y = layers.Dense(6, name="dense")(b)
    outputs = {"total": layers.Add()([x, y]), "label": layers.Softmax()(layers.Dense(3, name="head")(y))}
    model = keras.Model({"left": a, "right": b}, outputs)
    data = {"right": images[:, 0, 0, [0, 1, 2, 0]], "left": images}
    result = quantize(model, data, output_type="uint8")
    inputs, found = details(result.tflite)
    assert set(inputs) == {"left", "right"}
    assert set(found) == {"total", "label"}
    assert found["label"]["quantization"] == (1 / 256, 0)
    expected = model(data)
    for name, values in run_decoded(result.tflite, data).items():
        assert signal_to_noise(np.asarray(expected[name]), values) > 30
        assert signal_to_noise(values, np.asarray(result.keras_model(data)[name])) > 30
    assert quantize(model, [data["left"], data["right"]], output_type="uint8").tflite == result.tflite


def test_an_output_that_stays_float_is_an_integer_when_asked(images):
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(
        inputs, layers.Dense(3, name="head")(layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs)))
    )
    overrides = (tfptq.override("head", skip=True),)
    result = quantize(model, images, output_type="int8", overrides=overrides)
    assert details(result.tflite)[1]["output_0"]["dtype"] == np.int8
    assert signal_to_noise(np.asarray(model(images)), run_decoded(result.tflite, {"image": images})["output_0"]) > 30
    assert [item.name for item in result.report.skipped] == ["head"]


def test_the_kind_of_dataset_makes_no_difference(model, images, default):
    labels = np.zeros(SAMPLES)
    datasets = (
        lambda: ([image[None]] for image in images),
        tf.data.Dataset.from_tensor_slices((images, labels)).batch(5),
        {"image": images.astype(np.float64)},
    )
    for dataset in datasets:
        assert quantize(model, dataset).tflite == default


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_models_from_files(model, images, default, tmp_path, suffix):
    model.save(tmp_path / f"model{suffix}")
    for path in (tmp_path / f"model{suffix}", str(tmp_path / f"model{suffix}")):
        assert quantize(path, images).tflite == default


def test_more_samples_than_a_batch_are_all_seen(model, images):
    many = np.concatenate([images, images, 2 * images])
    result = quantize(model, many, calibration=tfptq.Calibration("min_max"), input_type="int8")
    assert result.report.samples == 3 * SAMPLES
    scale, zero_point = details(result.tflite)[0]["image"]["quantization"]
    assert (127 - zero_point) * scale >= many.max() - scale


@pytest.mark.parametrize("size", [1, 4])
def test_models_with_a_fixed_batch(images, size):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(size, 8, 8, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    result = quantize(model, images[:10])
    file = TFLiteModel(result.tflite)
    assert file.shape(file.subgraph.inputs[0]) == (size, 8, 8, 3)
    assert result.report.samples == 10
    found = run_decoded(result.tflite, {"image": images[:size]})["output_0"]
    assert signal_to_noise(np.asarray(model(images[:size])), found) > 30


def test_loops_stay_float_and_take_one_sample():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4), name="sequence")
    x = layers.Conv1D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.GRU(5, dropout=0.2, recurrent_dropout=0.2, name="memory")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    data = np.random.default_rng(0).normal(size=(SAMPLES, 6, 4)).astype(np.float32)
    result = quantize(model, data)
    assert [item.name for item in result.report.layers] == ["conv", "head"]
    assert [(item.name, item.type) for item in result.report.skipped] == [("memory", "GRU")]
    assert "WHILE" in [item.operator for item in result.report.float_operators]
    assert any("takes 1 sample at a time" in note for note in result.report.notes)
    assert result.report.samples == SAMPLES
    expected = np.asarray(model(data))
    for resolver in RESOLVERS:
        found = [run_decoded(result.tflite, {"sequence": item[None]}, resolver)["output_0"] for item in data]
        assert signal_to_noise(expected, np.concatenate(found)) > 30


def quantized_pixels(dtype, **options):
    inputs = keras.Input((4, 4, 3), dtype=dtype, name="pixels")
    x = layers.Conv2D(4, 3, name="conv")(layers.Rescaling(1 / 127.5, -1.0)(inputs))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3)).astype(dtype)
    return tfptq.quantize_keras_model(keras.Model(inputs, x), pixels, **options).report.notes


def test_integer_inputs_that_the_type_of_the_file_does_not_change_are_told():
    config = tfptq.QuantizationConfig.from_preset("w8a8_shift").replace(input_type="int8")
    warning = next(line for line in quantized_pixels("uint8", config=config) if "input_type" in line)
    assert "input_type='int8' does not change input 'pixels', which is uint8 in Keras" in warning
    assert "casts it to float32" in warning and "keras.Input(dtype='float32')" in warning
    for others in (quantized_pixels("float32", config=config), quantized_pixels("uint8")):
        assert not any("input_type" in line for line in others)


def test_bytes_in_front_of_a_nested_model_for_float32():
    backbone = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255.0), layers.Conv2D(4, 3)])
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    model = keras.Model(inputs, layers.Dense(3)(backbone(inputs)))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    result = quantize(model, pixels)
    assert details(result.tflite)[0]["pixels"]["dtype"] is np.uint8
    (found,) = run_decoded(result.tflite, {"pixels": pixels}).values()
    assert signal_to_noise(model.predict(pixels, verbose=0), found) > 30


def test_inputs_in_a_dict():
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    model = keras.Model({"right": right, "left": left}, layers.Dense(2)(layers.Concatenate()([left, 3.0 * right])))
    samples = dict(zip(("left", "right"), np.random.default_rng(0).normal(size=(2, 64, 4)).astype("f4"), strict=True))
    result = tfptq.quantize_keras_model(model, samples, progress=False)
    (found,) = run_decoded(result.tflite, samples).values()
    assert signal_to_noise(model.predict(samples, verbose=0), found) > 30
