import keras
import numpy as np
import pytest

from tfptq.data.errors import DataError
from tfptq.evaluation.metrics import resolve_metric, resolve_metrics, score, scores

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 400)
FLOATS = np.eye(4)[LABELS].astype(np.float32) + 0.5 * RNG.normal(size=(400, 4)).astype(np.float32)
FOUND = FLOATS + 0.2 * RNG.normal(size=(400, 4)).astype(np.float32)
PROBABILITIES = 1 / (1 + np.exp(-FLOATS)), 1 / (1 + np.exp(-FOUND))


def test_accuracy_and_its_paired_error():
    found = score(resolve_metric("accuracy"), "scores", LABELS, FOUND, FLOATS)
    right = [values.argmax(axis=1) == LABELS for values in (FLOATS, FOUND)]
    assert (found.float_value, found.value) == (right[0].mean(), right[1].mean())
    assert found.drop == found.float_value - found.value
    changed = np.sum(right[0] != right[1])
    assert found.drop_error == pytest.approx(np.sqrt(changed) / 400, rel=0.01) and changed > 10


def test_without_a_float_model():
    found = score(resolve_metric("accuracy"), "scores", LABELS, FOUND, None)
    assert found.float_value is None and found.drop is None and found.drop_error is None


@pytest.mark.parametrize("name", ["sparse_categorical_accuracy", "SparseCategoricalAccuracy"])
def test_a_metric_of_keras_by_name_has_the_error_of_the_same_metric_by_samples(name):
    of_keras = score(resolve_metric(name), "", LABELS, FOUND, FLOATS)
    ours = score(resolve_metric("accuracy"), "", LABELS, FOUND, FLOATS)
    assert (of_keras.value, of_keras.float_value) == pytest.approx((ours.value, ours.float_value), abs=1e-6)
    assert of_keras.drop_error == pytest.approx(ours.drop_error, rel=0.35)


@pytest.mark.parametrize("metric", [keras.metrics.AUC(name="area"), keras.metrics.AUC, "AUC"])
def test_metrics_that_are_no_mean_over_samples(metric):
    labels = np.eye(4)[LABELS]
    found = score(resolve_metric(metric), "", labels, *PROBABILITIES[::-1])
    reference = keras.metrics.AUC()
    reference.update_state(labels, PROBABILITIES[1])
    assert found.value == pytest.approx(float(reference.result()))
    assert 0 < found.drop < 0.2 and 0.001 < found.drop_error < 0.02


def test_the_object_of_a_user_is_left_as_new():
    metric = keras.metrics.MeanSquaredError()
    metric.update_state([1.0], [3.0])
    resolved = resolve_metric(metric)
    found = score(resolved, "", np.zeros((400, 4)), FOUND, FLOATS)
    assert found.value == pytest.approx(np.square(FOUND).mean(), rel=1e-5) and float(metric.result()) == 0
    assert found.lower_is_better and found.drop == pytest.approx(found.value - found.float_value)


def test_functions_give_one_number_or_one_for_each_sample():
    def right(labels, outputs):
        return outputs.argmax(axis=1) == labels

    each = score(resolve_metric(right), "", LABELS, FOUND, FLOATS)
    whole = score(resolve_metric(lambda y, p: right(y, p).mean()), "", LABELS, FOUND, FLOATS)
    exact = score(resolve_metric("accuracy"), "", LABELS, FOUND, FLOATS)
    assert (each.metric, each.value, each.drop_error) == ("right", exact.value, exact.drop_error)
    assert (whole.value, whole.drop_error) == (exact.value, None)
    loss = score(resolve_metric("sparse_categorical_crossentropy"), "", LABELS, *PROBABILITIES[::-1])
    assert loss.metric == "sparse_categorical_crossentropy" and loss.drop_error > 0


def test_one_metric_for_each_output_with_labels():
    found, expected = ({name: values for name in ("a", "b")} for values in (FOUND, FLOATS))
    assert [it.output for it in scores(resolve_metrics("accuracy", "ab"), {"b": LABELS}, found, expected)] == ["b"]
    assert scores(resolve_metrics("accuracy", "ab"), {}, found, expected) == ()
    own = resolve_metrics({"a": "MeanSquaredError", "b": "accuracy"}, "ab")
    both = scores(own, {"a": FLOATS, "b": LABELS}, found, expected)
    assert [(it.output, it.metric) for it in both] == [("a", "mean_squared_error"), ("b", "accuracy")]
    assert resolve_metrics({"a": None, "b": "none"}, "ab") is None and resolve_metrics("none", "ab") is None


def test_a_function_gets_several_outputs_at_once():
    def distance(labels, outputs):
        assert labels is None
        return np.abs(outputs["a"] - outputs["b"])

    found = {"a": FOUND, "b": FLOATS}
    (only,) = scores(resolve_metrics(distance, "ab"), {}, found, {"a": FLOATS, "b": FLOATS})
    assert only.output == "" and only.value == pytest.approx(np.abs(FOUND - FLOATS).mean()) and only.float_value == 0
    (single,) = scores(resolve_metrics(lambda y, p: p, "a"), {}, {"a": FOUND}, {})
    assert single.value == pytest.approx(FOUND.mean())


def test_what_is_refused():
    with pytest.raises(TypeError, match="metric is 3; it must be 'accuracy'"):
        resolve_metric(3)
    with pytest.raises(ValueError, match="metric is 'acuracy'; it must be"):
        resolve_metric("acuracy")
    with pytest.raises(ValueError, match="metric names 'c', which is no output; the outputs are a, b"):
        resolve_metrics({"c": "accuracy"}, "ab")
    with pytest.raises(DataError, match="metric 'auc' of output 'a' needs labels"):
        scores(resolve_metrics(keras.metrics.AUC(name="auc"), "a"), {}, {"a": FOUND}, {})
    with pytest.raises(ValueError, match=r"gives an array of shape \[4\]; it must give one number, or one for each"):
        score(resolve_metric(lambda y, p: p.mean(axis=0)), "", LABELS, FOUND, FLOATS)
    with pytest.raises(ValueError, match="which is no number"):
        score(resolve_metric(lambda y, p: "good"), "", LABELS, FOUND, FLOATS)
