"""Fine-tuning of scales and biases: closer outputs, the same codes, the same bytes every time, clear refusals."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import run_decoded, signal_to_noise

import tfptq
from tfptq import PerBlock, PerChannel, PerTensor, QuantizationConfig
from tfptq.config import FineTuning
from tfptq.core.blocks import BlockScales, float_scales
from tfptq.layers import wrappers

COARSE = QuantizationConfig(PerChannel(), weight_bits=3, weight_scale="mse", edge_bits=None, layout="int8")
TUNED = FineTuning(epochs=20, learning_rate=1e-2, batch_size=32)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(96, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """A residual block with a depthwise layer."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(8, 3, padding="same", activation="relu6", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(stem)
    x = layers.Add()([stem, layers.Conv2D(8, 1, name="project")(x)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(4, name="logits")(x), name="network")


def quantize(model, data, config):
    return tfptq.quantize_keras_model(model, data, config, progress=False)


def codes_of(result):
    return {
        wrapper.layer.name: wrapper.weight_slots[0].quantized_weight().codes for wrapper in wrappers(result.keras_model)
    }


def snr(model, images, result):
    (found,) = run_decoded(result.tflite, {"image": images}).values()
    return signal_to_noise(np.asarray(model(images)), found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"granularity": PerBlock(2, 4), "scaler": "integer"},
        {"granularity": PerBlock(2, 4), "scaler": "shift"},
        {"granularity": PerTensor(), "scaler": "shift"},
        {"granularity": PerTensor()},
    ],
    ids=["channels", "integer blocks", "shift blocks", "wes", "tensor"],
)
def test_outputs_come_closer_and_codes_stay(model, images, changes):
    config = COARSE.replace(**changes)
    plain = quantize(model, images, config)
    tuned = quantize(model, images, config.replace(fine_tuning=TUNED))
    assert snr(model, images, tuned) > snr(model, images, plain) + 1.0
    before, after = codes_of(plain), codes_of(tuned)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert tfptq.verify(tuned.tflite).checks
    assert "fine-tune" in tuned.report.seconds and "report" in tuned.report.seconds
    predicted = tuned.keras_model.predict(images, verbose=0)
    (found,) = run_decoded(tuned.tflite, {"image": images}).values()
    np.testing.assert_allclose(found, predicted, atol=0.03 * np.abs(predicted).max())


def test_same_bytes_every_time(model, images):
    config = COARSE.replace(fine_tuning=TUNED)
    assert quantize(model, images, config).tflite == quantize(model, images, config).tflite


def test_shared_layers_and_several_outputs(images):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    x = shared(shared(inputs))
    head = layers.Dense(2, activation="sigmoid", name="head")(layers.Flatten()(x))
    model = keras.Model(inputs, [layers.Conv2D(2, 1, name="map")(x), head], name="two_outputs")
    plain = quantize(model, images, COARSE)
    tuned = quantize(model, images, COARSE.replace(fine_tuning=TUNED))
    expected = [np.asarray(output) for output in model(images)]
    before, after = (
        [max(signal_to_noise(a, b) for b in run_decoded(result.tflite, {"image": images}).values() if a.shape == b.shape)
         for a in expected]
        for result in (plain, tuned)
    )  # fmt: skip
    assert all(np.greater(after, before))


def test_a_model_that_takes_one_sample_at_a_time(images):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3), batch_size=1, name="image")
    model = keras.Model(
        inputs, layers.Dense(3, name="head")(layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs)))
    )
    result = quantize(model, images[:8], COARSE.replace(fine_tuning=FineTuning()))
    assert not result.report.warnings


def test_networks_without_gradients_are_left_alone_and_reported(images):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="head")(x))
    plain, tuned = (quantize(model, images, COARSE.replace(fine_tuning=each)) for each in (None, FineTuning()))
    assert not plain.report.warnings
    (warning,) = tuned.report.warnings
    assert warning == "the network was not fine-tuned: gradients do not pass through its operator RESIZE_BILINEAR"


def test_gains_keep_the_kind_of_scales():
    values = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    scaled = float_scales(values, (2, 3)).scaled(np.array([2.0, 0.5]))
    np.testing.assert_array_equal(scaled.values(), [[2.0, 4.0], [1.5, 2.0]])
    shifts = BlockScales("shift", np.ones(1, np.float32), np.array([[0], [-1]], np.int8), (1, 4))
    assert shifts.free_rows == 1
    np.testing.assert_array_equal(shifts.scaled(np.array([3.0])).values(), [[3.0], [1.5]])


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"learning_rate": 0.0}, {"batch_size": 0}])
def test_bad_options_are_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"fine_tuning.{name}"):
        FineTuning(**changes)


def test_config_round_trip():
    config = COARSE.replace(fine_tuning=FineTuning(2, 1e-4, 8))
    assert QuantizationConfig.from_json(config.to_json()) == config
