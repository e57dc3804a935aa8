import numpy as np
import pytest

import tfptq
from tfptq.data.checks import InputSpec
from tfptq.distributed.shards import calibration_batches, naming_shard, samples_and_labels, shards_of

SPECS = (InputSpec("x", (3,), "float32"),)


def test_a_folder_holds_shards_in_order_of_their_names(tmp_path):
    for name in ("b.npy", "a.npz", "notes.txt"):
        (tmp_path / name).touch()
    assert shards_of(tmp_path) == [str(tmp_path / "a.npz"), str(tmp_path / "b.npy")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "'nowhere', which is no folder"),
        ([], "there are no shards"),
        (np.zeros(3), "shards is a"),
        ([np.zeros(3)], "a shard is a"),
        (["x.tfrecord"], "'x.tfrecord' is no .npy or .npz file"),
    ],
)
def test_what_is_no_shard_is_refused(source, message):
    with pytest.raises(tfptq.DataError, match=message):
        shards_of(source)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(tfptq.DataError, match="holds no shards"):
        shards_of(tmp_path)


def test_labels_are_told_from_samples(tmp_path):
    x, y = np.ones((4, 3), np.float32), np.arange(4)
    np.savez(tmp_path / "one.npz", x=x, labels=y)
    samples, labels = samples_and_labels(tmp_path / "one.npz")
    np.testing.assert_array_equal(samples, x)
    np.testing.assert_array_equal(labels, y)
    np.savez(tmp_path / "two.npz", **{"a": x, "b": x, "labels:tags": y})
    samples, labels = samples_and_labels(tmp_path / "two.npz")
    assert list(samples) == ["a", "b"] and list(labels) == ["tags"]
    assert calibration_batches(tmp_path / "one.npz", SPECS).num_samples == 4


def test_errors_name_the_shard(tmp_path):
    np.save(tmp_path / "wide.npy", np.ones((4, 5), np.float32))
    with pytest.raises(tfptq.DataError, match=r"^shard .*wide.npy: .*the model asks for"), naming_shard("wide.npy"):
        calibration_batches(tmp_path / "wide.npy", SPECS)
