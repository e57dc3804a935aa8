"""Fine-tuning of whole networks: it gains, keeps what it must, and says when it cannot."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from stock_runtimes import run_decoded, signal_to_noise
from test_reordering import inverted_residual, residual, with_random_weights

import tfptq
from tfptq.config import FineTuning, PerBlock, PerChannel, PerTensor, QuantizationConfig, Rounding
from tfptq.core.blocks import BlockScales, float_scales
from tfptq.fine_tune import _learn, _Lessons
from tfptq.layers import wrappers
from tfptq.pipeline import kernel_views
from tfptq.tflite.skeleton import build_skeleton

W3 = QuantizationConfig(PerChannel(), weight_bits=3, fine_tuning=FineTuning(60, 8, 8, 5e-3))
WAYS = {
    "channel": {},
    "integer blocks": {"granularity": PerBlock(4, 4), "scaler": "integer"},
    "shift blocks": {"granularity": PerBlock(2, 4), "scaler": "shift"},
    "float blocks": {"granularity": PerBlock(2, 4), "layout": "inline"},
    "layer": {"granularity": PerTensor()},
    "layer shifts": {"granularity": PerTensor(), "scaler": "shift"},
}


def samples(count=64, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 3)).astype(np.float32)


def quantize(model, data, config):
    result = tfptq.quantize_keras_model(model, data, config, progress=False)
    tfptq.verify(result.tflite)
    return result


def error(model, data, result):
    outputs, expected = (each.predict(data, verbose=0) for each in (result.keras_model, model))
    return np.mean((outputs - expected) ** 2)


@pytest.mark.parametrize("network", [residual, inverted_residual])
@pytest.mark.parametrize("way", WAYS)
def test_outputs_of_new_samples_come_closer(network, way):
    model, data, other = with_random_weights(network()), samples(), samples(64, 1)
    config = W3.replace(**WAYS[way])
    plain, tuned = (quantize(model, data, each) for each in (config.replace(fine_tuning=None), config))
    assert error(model, other, tuned) < 0.9 * error(model, other, plain)
    for one, two in zip(wrappers(plain.keras_model), wrappers(tuned.keras_model), strict=True):
        codes = [each.weight_slots[0].quantized_weight().codes for each in (one, two)]
        np.testing.assert_array_equal(*codes)
    (found,) = run_decoded(tuned.tflite, {"image": data}).values()
    predicted = tuned.keras_model.predict(data, verbose=0)
    assert signal_to_noise(predicted, found) > 25.0


def test_what_does_not_help_is_not_kept():
    model, data = with_random_weights(residual()), samples()
    plain = quantize(model, data, W3.replace(fine_tuning=None))
    spoilt = quantize(model, data, W3.replace(fine_tuning=FineTuning(5, 1, 8, 10.0)))
    outputs = [result.keras_model.predict(data, verbose=0) for result in (plain, spoilt)]
    np.testing.assert_array_equal(*outputs)


def test_a_single_minibatch_is_enough():
    model, data = with_random_weights(residual()), samples(3)
    result = quantize(model, data, W3.replace(fine_tuning=FineTuning(2)))
    assert not [warning for warning in result.report.warnings if "fine-tuned" in warning]


def test_same_seed_same_bytes():
    model, data = with_random_weights(inverted_residual()), samples(24)
    first, second = (quantize(model, data, W3) for _ in range(2))
    assert first.tflite == second.tflite


class Reshuffled:
    """Batches of samples that come in another order in each pass."""

    def __init__(self, data, size):
        self.data, self.size, self.passes = data, size, 0

    def __iter__(self):
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(len(self.data))
        for start in range(0, len(order), self.size):
            yield {"image": self.data[order[start : start + self.size]]}


@pytest.mark.parametrize("kept_bytes", [1 << 26, 100, 0])
def test_targets_belong_to_their_samples_in_any_order(monkeypatch, kept_bytes):
    monkeypatch.setattr("tfptq.fine_tune._KEPT_BYTES", kept_bytes)
    model, data = with_random_weights(residual()), samples(20)
    skeleton = build_skeleton(model, kernel_views(model))
    for batches in (Reshuffled(data, 8), [{"image": data}]):
        lessons = _Lessons(skeleton, batches, 3)
        for _ in range(3):
            for inputs, (targets,) in lessons:
                (values,) = inputs.values()
                np.testing.assert_allclose(targets, model(values), atol=1e-4)
        assert lessons._kept_bytes <= kept_bytes


class EasierInEachPass:
    """Lessons whose loss falls from pass to pass by itself, for a network that multiplies."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        values = tf.constant([1000.0 * 0.1**self.passes])
        yield {0: values}, [values]

    def groups(self):
        return [None]


def test_the_loss_before_and_after_is_that_of_the_same_samples():
    gain = tf.Variable(0.1)
    network = SimpleNamespace(run=lambda inputs: [(1.0 + gain) * inputs[0]])
    better = _learn(network, [gain], EasierInEachPass(), FineTuning(1, 1, 8, 5.0), lambda samples: None)
    assert not better and abs(float(gain)) > 1.0


def test_float16_scales_stay_float16():
    inputs = keras.Input((64,), name="x")
    x = layers.Dense(32, activation="relu", name="first")(inputs)
    model = with_random_weights(keras.Model(inputs, layers.Dense(4, name="last")(x)))
    data = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    config = W3.replace(weight_bits=4, granularity=PerBlock(1, 32), layout="native", edge_bits=None)
    # ``verify`` in ``quantize`` compares the float16 scales of the file with those of the metadata.
    plain, tuned = (quantize(model, data, each) for each in (config.replace(fine_tuning=None), config))
    assert tuned.report.seconds["fine-tune"] > 0.0
    assert error(model, data, tuned) <= error(model, data, plain)


def test_refined_scales_of_the_layout_native_are_float16_too():
    inputs = keras.Input((64,), name="x")
    model = with_random_weights(keras.Model(inputs, layers.Dense(32, name="dense")(inputs)))
    data = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    config = W3.replace(weight_bits=4, granularity=PerBlock(1, 32), layout="native", edge_bits=None, fine_tuning=None)
    result = quantize(model, data, config.replace(rounding=Rounding("coordinate", refine_scales=2)))
    (slot,) = wrappers(result.keras_model)[0].weight_slots
    scales = slot.quantized_weight().scales.values()
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))


def test_a_network_without_gradients_is_reported_and_quantized():
    inputs = keras.Input((8, 8, 3))
    x = keras.ops.sin(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    result = quantize(model, samples(8), W3)
    (note,) = [text for text in result.report.warnings if "fine-tuned" in text]
    assert "gradients do not pass through its operator" in note
    assert "fine-tune" not in result.report.seconds


def test_shared_layers_and_several_outputs():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    x = shared(shared(inputs))
    head = layers.Dense(2, activation="sigmoid", name="head")(layers.Flatten()(x))
    model = keras.Model(inputs, {"map": layers.Conv2D(2, 1, name="map")(x), "head": head}, name="two_outputs")
    data = samples()
    expected = model.predict(data, verbose=0)
    plain, tuned = (
        run_decoded(quantize(model, data, each).tflite, {"image": data})
        for each in (W3.replace(fine_tuning=None, edge_bits=None), W3.replace(edge_bits=None))
    )
    for name, values in expected.items():
        assert signal_to_noise(values, tuned[name]) > signal_to_noise(values, plain[name])


def test_a_model_that_takes_one_sample_at_a_time():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3), batch_size=1, name="image")
    x = layers.Conv2DTranspose(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    result = quantize(model, samples(16), W3)
    assert "fine-tune" in result.report.seconds and not result.report.warnings


def test_gains_keep_the_kind_of_scales():
    values = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    scaled = float_scales(values, (2, 3)).scaled(np.array([2.0, 0.5]))
    np.testing.assert_array_equal(scaled.values(), [[2.0, 4.0], [1.5, 2.0]])
    shifts = BlockScales("shift", np.ones(1, np.float32), np.array([[0], [-1]], np.int8), (1, 4))
    assert shifts.free_rows == 1
    np.testing.assert_array_equal(shifts.scaled(np.array([3.0])).values(), [[3.0], [1.5]])


@pytest.mark.parametrize("changes", [{"steps": 0}, {"passes": 0}, {"learning_rate": 0.0}, {"batch_size": 0}])
def test_bad_options_are_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"fine_tuning.{name}"):
        FineTuning(**changes)
