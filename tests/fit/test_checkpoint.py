"""Checkpoints: what is stored comes back, and nothing else does."""

import numpy as np
import pytest

from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.fit.checkpoint import Checkpoint, fingerprint


def _weight():
    rng = np.random.default_rng(0)
    scales = BlockScales(
        "integer",
        rng.uniform(0.1, 1.0, 2).astype(np.float32),
        rng.integers(1, 17, (2, 3)).astype(np.int8),
        (2, 4),
    )
    return QuantizedWeight(rng.integers(-7, 8, (4, 10, 3)).astype(np.int8), scales, 4)


def test_a_weight_comes_back(tmp_path):
    weight, shift = _weight(), np.arange(4, dtype=np.float32)
    Checkpoint(tmp_path, "job").save(3, weight, shift)
    loaded, loaded_shift = Checkpoint(tmp_path, "job").load(3)
    np.testing.assert_array_equal(loaded.codes, weight.codes)
    np.testing.assert_array_equal(loaded.dequantize(), weight.dequantize())
    np.testing.assert_array_equal(loaded_shift, shift)
    assert (loaded.bits, loaded.scales.kind, loaded.scales.block_shape) == (4, "integer", (2, 4))
    assert Checkpoint(tmp_path, "job").load(2) is None


def test_another_job_is_refused(tmp_path):
    Checkpoint(tmp_path, "job")
    with pytest.raises(ValueError, match="another model, config, seed or dataset"):
        Checkpoint(tmp_path, "other")


@pytest.mark.parametrize("length", [0, 100])
def test_a_damaged_file_is_named(tmp_path, length):
    checkpoint = Checkpoint(tmp_path, "job")
    checkpoint.save(0, _weight(), np.zeros(4, np.float32))
    path = tmp_path / "weight_0000.npz"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"weight_0000\.npz is damaged"):
        checkpoint.load(0)


def test_fingerprints_tell_parts_apart():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(np.zeros(3), b"x") == fingerprint(np.zeros(3), b"x")
