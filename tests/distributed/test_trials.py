"""Configs of one model as jobs of their own."""

import keras
import pytest
from keras import layers

import tfptq
from tfptq import distributed

CONFIGS = {"eight": "w8a8_channel", "four": tfptq.QuantizationConfig(weight_bits=4, rounding="nearest")}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def data(digits):
    return digits.x_train[:64], (digits.x_test[:50], digits.y_test[:50])


@pytest.fixture(scope="module")
def tried(model, data):
    return distributed.try_configs(model, CONFIGS, *data)


def test_each_job_makes_the_file_of_the_plain_call(model, data, tried):
    assert list(tried) == ["eight", "four"]
    for name, config in CONFIGS.items():
        result = tfptq.quantize_keras_model(model, data[0], config, progress=False)
        assert tried[name].tflite == result.tflite
        found = tfptq.evaluate(result, data[1], model, latency_seconds=0.0, progress=False)
        assert tried[name].evaluation.score == found.score
        assert tried[name].evaluation.snr_db == found.snr_db


def test_processes_make_the_same_files(processes, model, data, tried, tmp_path):
    model.save(tmp_path / "net.keras")
    found = distributed.try_configs(tmp_path / "net.keras", CONFIGS, *data, runner=processes)
    assert {name: item.tflite for name, item in found.items()} == {name: item.tflite for name, item in tried.items()}
    assert found["four"].report.to_json() != "" and found["four"].config.weight_bits == 4


def test_names_of_presets_do(model, data):
    found = distributed.try_configs(model, ["w8a8_layer"], *data)
    assert found["w8a8_layer"].config == tfptq.QuantizationConfig.from_preset("w8a8_layer")


def test_errors_name_the_config(model, data):
    wrong = tfptq.QuantizationConfig(overrides=[tfptq.override("no_such_layer", skip=True)])
    with pytest.raises(ValueError, match="config 'wrong': .*no_such_layer"):
        distributed.try_configs(model, {"wrong": wrong}, *data)
    with pytest.raises(ValueError, match="configs is empty"):
        distributed.try_configs(model, {}, *data)
