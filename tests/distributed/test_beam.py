"""Apache Beam's DirectRunner; ``make test-beam`` installs Beam and runs this."""

import importlib.util
import os
import sys
from pathlib import Path

import keras
import pytest
import shard_sources
from keras import layers

from tfptq import distributed

ROOT = Path(__file__).parents[2]
with_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="apache-beam is not installed")
IN_PROCESSES = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@pytest.fixture
def workers_find_modules(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))


def test_the_extra_is_named_where_beam_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"pip install tfptq\[beam\]"):
        distributed.Beam()


@with_beam
def test_files_of_sums_are_removed(tmp_path):
    runner = distributed.Beam(temporary=str(tmp_path))
    assert sorted(runner.sum(shard_sources.as_tuple, list(range(9)))) == list(range(9))
    assert list(tmp_path.iterdir()) == []


@with_beam
def test_several_processes_give_the_same_file_and_evaluation(model, digits, tmp_path, workers_find_modules):
    samples, labels = digits.x_train[:128], digits.y_train[:128]
    one = shard_sources.write_shards(tmp_path / "one", samples, [], labels)
    several = shard_sources.write_shards(tmp_path / "several", samples, [32, 64, 96], labels)
    expected = distributed.quantize(model, one, progress=False)
    runner = distributed.Beam([*IN_PROCESSES, f"--temp_location={tmp_path / 'temporary'}"])
    (tmp_path / "temporary").mkdir()
    result = distributed.quantize(model, several, runner=runner, progress=False)
    assert result.tflite == expected.tflite
    found, wanted = (distributed.evaluate(result, folder, progress=False) for folder in (several, one))
    assert found.score == wanted.score and found.agreement == wanted.agreement
    by_beam = distributed.evaluate(result, several, runner=runner, progress=False)
    assert by_beam.score == wanted.score and by_beam.snr_db == pytest.approx(wanted.snr_db)
    assert list((tmp_path / "temporary").iterdir()) == []
