import json
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from search_trials import trial

import tfptq
from tfptq.exploration import search as module
from tfptq.exploration import workbench
from tfptq.exploration.goal import Goal
from tfptq.float_file.convert import convert_float
from tfptq.report.values import Finding


@pytest.fixture(scope="module")
def network(digits):
    """Wide enough for 4 and 2 bits to count, small enough for a second each."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten()]
    layers += [keras.layers.Dense(size, activation="relu", name=f"hidden_{size}") for size in (64, 48, 32)]
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax", name="classes")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(digits.x_train, digits.y_train, epochs=15, batch_size=32, verbose=0)
    return model


def searched(network, digits, **options):
    labels = options.pop("test_labels", digits.y_test)
    data = digits.x_test if labels is None else (digits.x_test, labels)
    options = {"progress": False, "most_trials": 5, "max_drop": 0.03, **options}
    return tfptq.search(network, digits.x_train[:64], data, **options)


@pytest.fixture(scope="module")
def found(network, digits):
    return searched(network, digits)


def test_the_smallest_file_within_the_drop(found, network, digits):
    sizes = {item.proposal.name: item.evaluation.bytes for item in found.trials}
    assert found.reached and found.best_trial.drop + found.best_trial.error <= 0.03
    assert len(found.best.tflite) == found.best_trial.evaluation.bytes
    accepted = [trial for trial in found.trials if found.goal.accepts(trial)]
    assert len(found.best.tflite) == min(trial.evaluation.bytes for trial in accepted) < sizes["w4a8_channel"]
    again = found.best.evaluate(digits.x_test, digits.y_test, latency_seconds=0, progress=False)
    assert again.score == found.best_trial.evaluation.score
    assert {trial.proposal.by for trial in found.trials} == {None, "sensitivity", "coding_length"}


def test_a_float_file_is_searched_as_its_keras_model(found, network, digits):
    of_file = searched(convert_float(network), digits)
    assert of_file.reached and of_file.best.keras_model is None
    ours, theirs = ([trial.proposal.name for trial in each.trials[:3]] for each in (of_file, found))
    assert ours == theirs == ["w8a8_shift", "w8a8_channel", "w4a8_channel"]
    assert "sensitivity" in {trial.proposal.by for trial in of_file.trials}
    assert len(of_file.best.tflite) <= 1.2 * len(found.best.tflite)
    again = of_file.best.evaluate(digits.x_test, digits.y_test, latency_seconds=0, progress=False)
    assert again.score == of_file.best_trial.evaluation.score


def test_models_without_a_known_graph_are_searched(digits):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="subclassed")
            self.flat, self.hidden = keras.layers.Flatten(), keras.layers.Dense(12, activation="relu", name="hidden")
            self.classes = keras.layers.Dense(10, name="classes")

        def call(self, inputs):
            return self.classes(self.hidden(self.flat(inputs)))

    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(digits.x_train[:1])
    found = searched(model, digits, test_labels=None, most_trials=2, max_drop=0.2)
    assert [trial.proposal.name for trial in found.trials] == ["w8a8_shift", "w8a8_channel"]
    assert [layer.name for layer in found.best.report.layers] == ["hidden", "classes"]


def test_table_json_and_picture(found, tmp_path):
    lines = str(found).splitlines()
    assert lines[0].startswith("fewest bytes within a drop of 0.03 (the metric)")
    (marked,) = (line for line in lines if line.startswith("* "))
    assert found.best_trial.proposal.name in marked and f"{len(found.best.tflite):,}" in marked and "yes" in marked
    values = json.loads(found.to_json())
    assert values["best"] == found.best_trial.proposal.name and len(values["trials"]) == len(found.trials)
    config = tfptq.QuantizationConfig.from_json(json.dumps(values["trials"][-1]["config"]))
    assert config == found.trials[-1].proposal.config
    assert found.save_plot(tmp_path / "pareto.png").exists() and "within a drop of 0.03" in repr(found)


def test_the_report_of_the_best_file_shows_all_trials(found):
    points = found.best.report.trials
    assert [point.label for point in points] == [trial.proposal.name for trial in found.trials]
    (chosen,) = (point for point in points if point.chosen)
    assert chosen.file_bytes == len(found.best.tflite) and chosen.quality == -found.best_trial.drop
    assert "Size against accuracy, less that of float" in found.best.report.to_html()


def test_a_killed_search_goes_on_and_ends_the_same(network, digits, tmp_path, monkeypatch):
    quantize, calls = workbench.quantize, []

    def counting(model, samples, config, **options):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(config)
        return quantize(model, samples, config, **options)

    monkeypatch.setattr(workbench, "quantize", counting)
    with pytest.raises(KeyboardInterrupt):
        searched(network, digits, checkpoint_dir=tmp_path, most_trials=2)
    assert len(list(tmp_path.glob("*/trial.json"))) == 1
    monkeypatch.setattr(workbench, "quantize", quantize)
    resumed = searched(network, digits, checkpoint_dir=tmp_path, most_trials=2)
    whole = searched(network, digits, most_trials=2)
    assert [trial.proposal for trial in resumed.trials] == [trial.proposal for trial in whole.trials]
    assert resumed.best.tflite == whole.best.tflite
    assert [trial.drop for trial in resumed.trials] == [trial.drop for trial in whole.trials]

    monkeypatch.setattr(workbench.Workbench, "try_out", None)  # nothing is left to try
    again = searched(network, digits, checkpoint_dir=tmp_path, most_trials=2)
    assert again.best.tflite == whole.best.tflite
    with pytest.raises(ValueError, match="holds a search with another evaluation dataset, metric; choose another"):
        searched(network, digits, checkpoint_dir=tmp_path, test_labels=None, metric=None)


def test_a_budget_of_time_ends_between_trials(network, digits, monkeypatch):
    clock = iter([0.0, 1.0, 11.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with pytest.warns(UserWarning, match="the budget of time ended after 2 trials"):
        short = searched(network, digits, budget_seconds=10.0)
    assert [trial.proposal.name for trial in short.trials] == ["w8a8_shift", "w8a8_channel"]


def test_without_labels_decisions_of_the_float_model_count(network, digits):
    found = searched(network, digits, test_labels=None, most_trials=1, max_drop=0.05)
    assert all(trial.drop == 1 - trial.evaluation.agreement for trial in found.trials)
    assert "decisions other than those of float" in str(found)


def test_a_drop_that_nothing_keeps(network, digits):
    with pytest.warns(UserWarning, match="no file is within a drop of 0.0001; the best one loses"):
        found = searched(network, digits, max_drop=0.0001, most_trials=4)
    assert not found.reached and found.best_trial.proposal.name.startswith("w8a8") and len(found.trials) == 3
    assert "warning: no file is within" in str(found)


def test_warnings():
    good, near = trial(size=900), trial("w4a8_channel", size=500, drop=0.008, error=0.004)
    assert list(module._warnings([good], Goal(0.01), complete=True)) == []
    (text,) = module._warnings([good, near], Goal(0.01), complete=True)
    assert text.startswith("500 evaluation samples are too few to tell whether smaller files are within a drop of 0.01")
    assert "'w4a8_channel' loses 0.0080 with a standard error of 0.0040; about 1,28" in text
    (text,) = module._warnings([trial(metric="f1", error=None)], Goal(0.01), complete=True)
    assert text.startswith("the standard error of the metric is not known")


def test_latency_and_a_metric_that_measures_an_error(network, digits):
    options = {"objective": "latency", "most_trials": 1, "max_drop": 0.1}
    found = searched(network, digits, metric="sparse_categorical_crossentropy", **options)
    assert all(trial.evaluation.latency.ratio > 0 for trial in found.trials)
    assert all(trial.proposal.config.layout == "speed" for trial in found.trials)
    keras_metric = keras.metrics.SparseCategoricalCrossentropy()
    (only,) = searched(network, digits, metric=keras_metric, most_trials=1).trials
    (score,) = only.evaluation.scores
    assert only.drop == score.value - score.float_value


def test_a_signature_of_a_file(network, digits):
    file = convert_float(network)
    assert searched(file, digits, signature="serving_default", most_trials=1).best.tflite
    with pytest.raises(ValueError, match="has no signature 'other'; its signatures: 'serving_default'"):
        searched(file, digits, signature="other")


def test_only_the_chosen_file_is_warned_of(network, digits, monkeypatch):
    lost = Finding("layers", "layer 'classes' is lost", "Leave it in float")

    def quantize(*arguments, **options):
        result = tfptq.quantize(*arguments, **options)
        warnings.warn(str(lost), tfptq.QuantizationWarning, stacklevel=2)
        return replace(result, report=replace(result.report, findings=(lost,)))

    monkeypatch.setattr(workbench, "quantize", quantize)
    with pytest.warns(tfptq.QuantizationWarning) as caught:
        found = searched(network, digits)
    assert len(found.trials) > 1 and [str(it.message) for it in caught].count(str(lost)) == 1
    assert str(found).count(f"warning: {lost}") == 1


def test_what_is_refused_before_the_work(network, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(workbench, "quantize", None)
    (tmp_path / "file").write_text("")
    for options, error, message in (
        ({"target": "phone"}, ValueError, "target is 'phone'"),
        ({"most_trials": 0}, ValueError, "most_trials is 0"),
        ({"metric": "acuracy"}, ValueError, "metric is 'acuracy'"),
        ({"test_labels": digits.y_test + 1}, tfptq.DataError, "the labels are from 1 to 10"),
        ({"checkpoint_dir": tmp_path / "file"}, NotADirectoryError, "which is a file"),
    ):
        with pytest.raises(error, match=message):
            searched(network, digits, **options)


def test_outputs_that_decide_nothing_need_a_metric():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    samples = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with pytest.raises(ValueError, match="without labels, files are judged by decisions"):
        tfptq.search(model, samples, samples, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        labels = model.predict(samples, verbose=0)
        found = tfptq.search(
            model,
            samples,
            (samples, labels),
            metric=lambda y, p: -np.square(y - p),
            max_drop=0.01,
            most_trials=2,
            progress=False,
        )
    assert found.reached
