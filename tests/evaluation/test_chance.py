import warnings

import keras
import numpy as np
import pytest

import tfptq
from tfptq.evaluation.chance import doubt_about_labels

COUNT, CLASSES = 200, 10
TRUE = np.random.default_rng(0).integers(0, CLASSES - 1, COUNT)


def outputs(true, right=0.9, classes=CLASSES):
    """Scores of a model that is right on a share of the samples."""
    rng = np.random.default_rng(1)
    decided = np.where(rng.random(len(true)) < right, true, rng.integers(0, classes, len(true)))
    return np.eye(classes, dtype=np.float32)[decided]


def test_labels_that_count_otherwise():
    assert doubt_about_labels(TRUE, outputs(TRUE)) is None
    assert doubt_about_labels(TRUE[:, None], outputs(TRUE, 0.2)) is None
    assert "with labels + 1 it would be 9" in doubt_about_labels(TRUE, outputs(TRUE + 1))
    assert "with labels - 1 it would be 9" in doubt_about_labels(TRUE + 1, outputs(TRUE))
    text = doubt_about_labels(np.random.default_rng(2).permutation(TRUE), outputs(TRUE))
    assert "no more than by chance" in text and text.endswith("as the model expects")


def test_what_tells_nothing_is_not_doubted():
    few, wrong = TRUE[:19], outputs(TRUE + 1)
    assert doubt_about_labels(few, wrong[:19]) is None
    assert doubt_about_labels(TRUE % 2, wrong[:, :2]) is None
    assert doubt_about_labels(np.eye(CLASSES)[TRUE], wrong) is None  # one-hot
    assert doubt_about_labels(TRUE, TRUE[:, None].astype(np.float32)) is None


@pytest.fixture(scope="module")
def network():
    """Decides for the input as it is."""
    inputs = keras.Input((CLASSES,), name="x")
    layer = keras.layers.Dense(CLASSES, kernel_initializer="identity", name="classes")
    return keras.Model(inputs, layer(inputs))


def test_evaluate_and_search_warn(network):
    samples = np.eye(CLASSES, dtype=np.float32)[TRUE + 1]
    result = tfptq.quantize_keras_model(network, samples, progress=False)
    with pytest.warns(UserWarning, match=r"right on 0\.0 % of 200 samples.*with labels \+ 1 it would be 100\.0 %"):
        found = result.evaluate(samples, TRUE, latency_seconds=0, progress=False)
    assert "warning: the float model is right on 0.0 %" in str(found)
    assert tfptq.Evaluation.from_json(found.to_json()) == found
    with pytest.warns(UserWarning, match=r"with labels \+ 1 it would be 100\.0 %"):
        tfptq.search(network, samples, (samples, TRUE), most_trials=1, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not result.evaluate(samples, TRUE + 1, latency_seconds=0, progress=False).warnings
