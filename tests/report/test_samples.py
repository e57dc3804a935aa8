"""Samples of another range than in training, judged by what there is to judge by."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfptq
from tfptq.graph import InputStatistics, input_statistics
from tfptq.report.preprocessing import CORRECTIONS, divergence

RNG = np.random.default_rng(0)


def findings(model, samples, config="w8a8_channel"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tfptq.QuantizationWarning)
        report = tfptq.quantize_keras_model(model, samples.astype(np.float32), config, progress=False).report
    return report.findings


def of_range(model, samples):
    return [finding for finding in findings(model, samples) if finding.kind == "input-range"]


CASES = [
    (lambda x: 255 * x, "divide them by 255"),
    (lambda x: x / 255, "multiply them by 255"),
    (lambda x: 2 * x - 1, "(x + 1) / 2"),
    (lambda x: (x + 1) / 2, "2 * x - 1"),
]


@pytest.mark.parametrize(("change", "advice"), CASES)
def test_a_batch_norm_tells_what_samples_should_have_been(digits, digits_convnet, change, advice):
    (finding,) = of_range(digits_convnet, change(digits.x_train[:64]))
    assert "what layer 'batch_normalization" in finding.problem and finding.advice.endswith(advice)


@pytest.mark.parametrize("preset", ["w8a8_shift", "w8a8_channel", "w4a8_channel"])
def test_trained_networks_on_their_own_samples_have_no_findings(digits, digits_convnet, digits_dense, preset):
    for model in (digits_convnet, digits_dense):
        assert findings(model, digits.x_train[:64], preset) == ()


@pytest.mark.parametrize("count", [1, 4, 200])
def test_neither_have_few_or_many_samples_a_wrong_range(digits, digits_convnet, count):
    assert not of_range(digits_convnet, digits.x_train[:count])


def test_probabilities_of_0_and_1_tell_of_samples_that_are_too_large(digits, digits_dense):
    (finding,) = of_range(digits_dense, 255 * digits.x_train[:64])
    assert "exactly 0 and 1" in finding.problem and "too large" in finding.advice


def test_outputs_that_hardly_vary_tell_of_samples_that_are_too_small(digits, digits_dense):
    (finding,) = of_range(digits_dense, digits.x_train[:64] / 255)
    assert "hardly vary" in finding.problem and "255" in finding.advice


@pytest.mark.parametrize(("activation", "name"), [("relu6", "stem"), ("tanh", "stem")])
def test_functions_that_saturate(activation, name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation=activation, name=name)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images = RNG.random((32, 8, 8, 3))
    assert not of_range(model, images)
    (finding,) = of_range(model, 255 * images)
    assert "are saturated" in finding.problem and "scale them as in training" in finding.advice


@pytest.mark.parametrize(
    ("scale", "largest", "wrong"),
    [(1 / 255, 255, False), (1 / 255, 1, True), (1 / 127.5, 255, False), (1 / 255, 255 * 255, True), (255, 1, False)],
)
def test_constant_factors_tell_of_samples_that_were_scaled_twice(scale, largest, wrong):
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(2, 3)(layers.Rescaling(scale)(inputs)))
    found = of_range(model, largest * RNG.random((32, 8, 8, 3)))
    assert [finding.kind for finding in found] == ["input-range"] * wrong
    assert not found or "'image'" in found[0].problem


def test_few_samples_and_equal_ones(digits, digits_dense):
    (few,) = findings(digits_dense, digits.x_train[:9])
    assert few.kind == "samples" and few.problem == "calibration saw only 9 samples"
    kinds = [(it.kind, it.problem) for it in findings(digits_dense, np.repeat(digits.x_train[:1], 20, axis=0))]
    assert kinds == [("samples", "the first calibration samples are all the same")]


def test_divergence_is_that_of_normal_distributions():
    """Kullback-Leibler divergence of N(1, 4) from N(0, 1): (4 + 1 - 1 - log 4) / 2."""
    inputs = keras.Input((1,), name="x")
    identity = keras.Model(inputs, keras.ops.multiply(inputs, 1.0))
    known = InputStatistics("x", "bn", np.zeros(1), np.ones(1), 1e-9, -1, identity)
    samples = RNG.normal(1.0, 2.0, size=(200_000, 1)).astype(np.float32)
    batches = [{"x": part} for part in np.array_split(samples, 3)]
    assert divergence(known, batches) == pytest.approx((4 - np.log(4)) / 2, rel=0.02)


def test_corrections_for_other_channels_do_not_apply(digits, digits_convnet):
    (known,) = input_statistics(digits_convnet)
    left = [divergence(known, [{known.input: digits.x_train[:32]}], it) for it in CORRECTIONS]
    assert np.isfinite(left[:6]).all() and np.isinf(left[6:]).all()


def test_channels_that_hardly_vary_count_for_nothing():
    inputs = keras.Input((2,), name="x")
    identity = keras.Model(inputs, keras.ops.multiply(inputs, 1.0))
    samples = RNG.normal(0.0, (1e-6, 1.0), size=(1000, 2)).astype(np.float32)
    known = InputStatistics("x", "bn", np.zeros(2), np.array([1e-12, 1.0]), 1e-3, -1, identity)
    assert divergence(known, [{"x": samples}]) < 0.01
    assert divergence(InputStatistics("x", "bn", np.zeros(2), np.zeros(2), 9.0, -1, identity), [{"x": samples}]) == 0.0
