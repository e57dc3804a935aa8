"""The same file out of any number of shards."""

import keras
import numpy as np
import pytest
import shard_sources
from keras import layers

import tfptq
from tfptq import distributed
from tfptq.distributed.drawing import evenly
from tfptq.tflite.interface import read_interface
from tfptq.tflite.model_reader import read_model

CONFIG = tfptq.QuantizationConfig.from_preset("w4a8_channel").replace(statistics_samples=64)


@pytest.fixture(scope="module")
def model():
    """A convolution that learns its rounding, and a softmax of which nothing is cut off."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def samples(digits):
    return digits.x_train[:256]


@pytest.fixture(scope="module")
def whole(model, samples, tmp_path_factory):
    folder = shard_sources.write_shards(tmp_path_factory.mktemp("one") / "shards", samples, [])
    return distributed.quantize(model, folder, CONFIG, progress=False)


@pytest.fixture(scope="module")
def eight(samples, tmp_path_factory):
    return shard_sources.write_shards(tmp_path_factory.mktemp("eight") / "shards", samples, range(32, 256, 32))


def test_eight_shards_give_the_file_of_one(model, whole, eight):
    result = distributed.quantize(model, eight, CONFIG, progress=False)
    assert result.tflite == whole.tflite
    assert result.report.samples == whole.report.samples == 256


def test_processes_give_the_file_of_one(processes, model, whole, eight, tmp_path):
    model.save(tmp_path / "net.keras")
    sent, received = processes.sent, processes.received
    result = distributed.quantize(tmp_path / "net.keras", eight, CONFIG, runner=processes, progress=False)
    assert result.tflite == whole.tflite
    assert processes.sent - sent > 2 * len(result.float_tflite) and processes.received - received > 10_000


def test_all_samples_drawn_give_the_file_of_the_plain_loop(model, samples, eight):
    config = CONFIG.replace(statistics_samples=None)
    result = distributed.quantize(model, eight, config, progress=False)
    assert result.tflite == tfptq.quantize_keras_model(model, samples, config, progress=False).tflite


def test_ranges_are_those_of_all_samples(model, samples, tmp_path):
    """A sample that is not drawn is measured."""
    bright = samples.copy()
    bright[100] *= 50.0
    assert 100 not in evenly(256, 8)
    folder = shard_sources.write_shards(tmp_path / "bright", bright, [128])
    config = CONFIG.replace(statistics_samples=8, input_type="int8")
    result = distributed.quantize(model, folder, config, progress=False)
    (scale,) = [row.scale for row in read_interface(read_model(result.tflite)) if row.end == "input"]
    assert scale == pytest.approx(bright.max() / 255, rel=0.01)


def test_tf_data_shards_by_itself(model, samples, whole, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    config = CONFIG.replace(statistics_samples=8)
    result = distributed.quantize(model, shard_sources.tf_data_shards(tmp_path / "x.npy", 4), config, progress=False)
    assert result.report.samples == 256


def test_a_bad_shard_is_named(model, eight, tmp_path):
    np.save(tmp_path / "bad.npy", np.zeros((4, 7, 7, 1), np.float32))
    with pytest.raises(tfptq.DataError, match=r"shard .*bad\.npy: calibration data for input 'image'"):
        distributed.quantize(model, [*sorted(eight.iterdir()), tmp_path / "bad.npy"], progress=False)


def test_float_files_metadata_and_checkpoints(model, eight, whole, tmp_path):
    (tmp_path / "float.tflite").write_bytes(whole.float_tflite)
    labels = tfptq.AppMetadata(labels=[str(digit) for digit in range(10)])
    options = {"app_metadata": labels, "checkpoint_dir": tmp_path / "checkpoint", "progress": False}
    found = distributed.quantize(tmp_path / "float.tflite", eight, CONFIG, **options)
    again = distributed.quantize(tmp_path / "float.tflite", eight, CONFIG, **options)
    assert found.tflite == again.tflite and b"TFLITE_METADATA" in found.tflite
    assert found.report.samples == 256 and any((tmp_path / "checkpoint").iterdir())


class Unknown(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_model_that_does_not_tell_its_inputs_is_refused(eight):
    with pytest.raises(ValueError, match=r"Unknown does not tell the shapes of its inputs.*keras.Input"):
        distributed.quantize(Unknown(), eight, progress=False)
