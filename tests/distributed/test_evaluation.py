import functools

import keras
import pytest
import shard_sources

import tfptq
from tfptq import distributed


@pytest.fixture(scope="module")
def result(digits, digits_dense):
    return tfptq.quantize_keras_model(digits_dense, digits.x_train[:64], "w8a8_channel", progress=False)


@pytest.fixture(scope="module")
def shards(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("test") / "shards"
    return shard_sources.write_shards(folder, digits.x_test, [10, 100, 101, 300], digits.y_test)


def assert_same(found, expected):
    assert (found.samples, found.bytes, found.float_bytes) == (expected.samples, expected.bytes, expected.float_bytes)
    assert (found.score, found.float_score) == (pytest.approx(expected.score), pytest.approx(expected.float_score))
    assert (found.drop_error, found.agreement) == (
        pytest.approx(expected.drop_error, abs=1e-9),
        pytest.approx(expected.agreement),
    )
    assert found.snr_db == pytest.approx(expected.snr_db) and found.latency is None


@pytest.mark.parametrize("metric", ["accuracy", shard_sources.right_decision])
def test_shards_are_evaluated_as_one_dataset(digits, result, shards, metric):
    found = distributed.evaluate(result, shards, metric=metric, progress=False)
    assert_same(found, result.evaluate(digits.x_test, digits.y_test, metric=metric, latency_seconds=0, progress=False))


def test_processes_and_functions_that_yield_labels(processes, digits, digits_dense, result, tmp_path):
    whole = next(shard_sources.write_shards(tmp_path / "one", digits.x_test, [], digits.y_test).iterdir())
    bounds = [(0, 128), (128, 397)]
    parts = [functools.partial(shard_sources.labelled_samples, str(whole), *bound) for bound in bounds]
    received = processes.received
    found = distributed.evaluate(result.tflite, parts, digits_dense, runner=processes, progress=False)
    expected = tfptq.evaluate(
        result.tflite, (digits.x_test, digits.y_test), digits_dense, latency_seconds=0, progress=False
    )
    assert_same(found, expected)
    assert processes.received - received < 10_000 + digits.x_test.nbytes


def test_without_labels_or_model(digits, result, tmp_path):
    folder = shard_sources.write_shards(tmp_path / "plain", digits.x_test, [200])
    found = distributed.evaluate(result, folder, progress=False)
    assert found.scores == () and found.agreement > 0.9
    alone = distributed.evaluate(result.tflite, folder, metric=None, progress=False)
    assert alone.fidelities == () and alone.scores == () and alone.samples == 397


def test_metrics_that_do_not_add_up_are_refused(result, shards):
    with pytest.raises(ValueError, match="'auc' of Keras does not add up over shards"):
        distributed.evaluate(result, shards, metric=keras.metrics.AUC(name="auc"), progress=False)
    with pytest.raises(ValueError, match="'one_number' gives one number for all samples"):
        distributed.evaluate(result, shards, metric=shard_sources.one_number, progress=False)


def test_labels_that_do_not_fit_are_told_with_the_shard(digits, result, tmp_path):
    folder = shard_sources.write_shards(tmp_path / "bad", digits.x_test[:20], [10], digits.y_test[:20] + 5)
    with pytest.raises(tfptq.DataError, match=r"shard .*00\d\.npz: the labels are from"):
        distributed.evaluate(result, folder, progress=False)
