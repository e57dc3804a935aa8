"""Checkpoints: what is stored comes back, and nothing else does."""

import io
import json
import os

import numpy as np
import pytest

from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.fit.checkpoint import Checkpoint, fingerprint

SHAPE = (4, 10, 3)


def weight(kind="integer", shared=False):
    rng = np.random.default_rng(0)
    low, high = {"integer": (1, 17), "shift": (-15, 16), "float": (1, 2)}[kind]
    factors = rng.integers(low, high, (2, 3)).astype(np.int8)
    if kind == "float":
        factors = rng.uniform(0.1, 1, (2, 3)).astype(np.float32)
    base = np.ones(1) if kind == "float" else rng.uniform(0.1, 1.0, 1 if shared else 2)
    scales = BlockScales(kind, base.astype(np.float32), factors, (2, 4))
    return QuantizedWeight(rng.integers(-7, 8, SHAPE).astype(np.int8), scales, 4)


@pytest.mark.parametrize("kind", ["integer", "shift", "float"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_weight_comes_back(tmp_path, kind, shared):
    stored, shift = weight(kind, shared), np.arange(4, dtype=np.float32)
    Checkpoint(tmp_path, "job").save(3, stored, shift)
    loaded, loaded_shift = Checkpoint(tmp_path, "job").load(3, SHAPE)
    for found, expected in (
        (loaded.codes, stored.codes),
        (loaded.scales.base, stored.scales.base),
        (loaded.scales.factors, stored.scales.factors),
        (loaded_shift, shift),
    ):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert (loaded.bits, loaded.scales.kind, loaded.scales.block_shape) == (4, kind, (2, 4))
    assert Checkpoint(tmp_path, "job").load(2, SHAPE) is None


def test_another_job_is_refused(tmp_path):
    Checkpoint(tmp_path, "job")
    with pytest.raises(ValueError, match="another model, config, seed or dataset"):
        Checkpoint(tmp_path, "other")


@pytest.fixture
def folder(tmp_path):
    """A folder with two finished weights of one job."""
    checkpoint = Checkpoint(tmp_path, "job")
    for number in (0, 1):
        checkpoint.save(number, weight(), np.full(4, number, np.float32))
    return tmp_path


def refused(folder, message, shape=SHAPE):
    with pytest.raises(ValueError, match=message) as raised:
        Checkpoint(folder, "job").load(0, shape)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


def forged(folder, change, job="job", number=0):
    """A file with another content, and the digest that goes with it."""
    path = folder / "weight_0000.bin"
    rest = change(path.read_bytes().partition(b"\n")[2])
    path.write_bytes(fingerprint(job, str(number), rest).encode() + b"\n" + rest)


def header(**changes):
    def change(rest):
        text, _, data = rest.partition(b"\n")
        return json.dumps({**json.loads(text), **changes}).encode() + b"\n" + data

    return change


def numbers(position, value):
    """One float32 or byte of the arrays: base 2 x 4, factors 6, codes 120, bias 4 x 4 bytes."""

    def change(rest):
        text, _, data = rest.partition(b"\n")
        return text + b"\n" + data[:position] + value + data[position + len(value) :]

    return change


@pytest.mark.parametrize("length", [0, 1, 64, 65, 100, -1])
def test_a_cut_file_is_named(folder, length):
    path = folder / "weight_0000.bin"
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, r"checkpoint file .*weight_0000\.bin is damaged")


@pytest.mark.parametrize("position", [0, 63, 70, 200, 300, -1])
def test_a_changed_bit_is_found(folder, position):
    path = folder / "weight_0000.bin"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    refused(folder, r"weight_0000\.bin is damaged or of another job")


def test_exchanged_and_foreign_files_are_found(folder, tmp_path_factory):
    os.replace(folder / "weight_0001.bin", folder / "weight_0000.bin")
    refused(folder, "its digest differs")
    other = tmp_path_factory.mktemp("other")
    Checkpoint(other, "other job").save(0, weight(), np.zeros(4, np.float32))
    os.replace(other / "weight_0000.bin", folder / "weight_0000.bin")
    refused(folder, "its digest differs")


def array(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize("content", [array(np.zeros(9)), b"PK\3\4" + bytes(60), b"\n" * 100, b"\xff" * 200])
def test_files_of_other_kinds_are_found(folder, content):
    (folder / "weight_0000.bin").write_bytes(content)
    refused(folder, "its digest differs")


FORGERIES = {
    r"the shape \[4, 10, 4\], expected \[4, 10, 3\]": header(shape=[4, 10, 4]),
    "blocks of None": header(block_shape=None),
    r"blocks of \[2, 0\]": header(block_shape=[2, 0]),
    r"blocks of \[true": lambda rest: rest.replace(b"[2, 4]", b"[true, 4]"),
    "7 bits": header(bits=7),
    "True bits": header(bits=True),
    "kind 'decimal'": header(kind="decimal"),
    "kind 'integer'": header(rows_share_base=1),
    "header is not known": header(more=1),
    "it is not JSON": lambda rest: b"{" + rest[:-1],
    "expected 150": lambda rest: rest + b"\0",
    "'utf-8'": lambda rest: b"\xff" + rest,
    "bytes of numbers": header(block_shape=[1, 1]),
    "a code is not between -8 and 7": numbers(20, b"\x08"),
    "a bias is not finite": numbers(134, b"\0\0\xc0\x7f"),
    "a scale is out of range": numbers(0, b"\0\0\xc0\x7f"),
    "a scale is out": numbers(0, b"\0\0\0\x7f"),
    "scale is out of range": numbers(4, b"\0\0\0\x80"),
    "scale is out": numbers(8, b"\x11"),
    "is out of range": numbers(8, b"\x00"),
}


@pytest.mark.parametrize("message", FORGERIES)
def test_a_forged_file_is_not_believed(folder, message):
    forged(folder, FORGERIES[message])
    refused(folder, message.replace("true", "True"))


def test_a_file_of_another_weight_is_not_believed(folder):
    refused(folder, r"it has the shape \[4, 10, 3\], expected \[4, 30, 1\]", (4, 30, 1))


def test_what_is_no_file_is_named(folder):
    (folder / "weight_0000.bin").unlink()
    (folder / "weight_0000.bin").mkdir()
    refused(folder, r"weight_0000\.bin is no file")
    (folder / "weight_0000.bin").rmdir()
    os.mkfifo(folder / "weight_0000.bin")
    refused(folder, r"weight_0000\.bin is no file")
    (folder / "weight_0000.bin").unlink()
    (folder / "weight_0000.bin").symlink_to("nowhere")
    refused(folder, r"weight_0000\.bin is no file")


def test_a_huge_file_is_not_read(folder):
    with open(folder / "weight_0000.bin", "r+b") as file:
        file.truncate(2**40)
    refused(folder, r"weight_0000\.bin is damaged \(too large\)")


def test_a_missing_or_odd_job_file_is_named(folder):
    (folder / "job.txt").unlink()
    refused(folder, r"finished weights and no job\.txt")
    (folder / "job.txt").mkdir()
    refused(folder, r"job\.txt is no file")
    (folder / "job.txt").rmdir()
    (folder / "job.txt").write_bytes(b"\xff\xfe")
    refused(folder, "another model, config, seed or dataset")


def test_leftovers_of_killed_writes_are_removed(folder):
    leftovers = [f".weight_0001.bin.{'0a' * 8}.tmp", f".job.txt.{'f' * 16}.tmp"]
    others = [".weight_0001.bin.short.tmp", "notes.txt", f".other.{'0' * 16}.tmp"]
    for name in (*leftovers, *others):
        (folder / name).write_bytes(b"half")
    Checkpoint(folder, "job")
    assert sorted(os.listdir(folder)) == sorted([*others, "job.txt", "weight_0000.bin", "weight_0001.bin"])


def test_a_full_disk_names_the_file(folder, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"cannot write .*weight_0002\.bin: No space left on device"):
        Checkpoint(folder, "job").save(2, weight(), np.zeros(4, np.float32))
    assert sorted(os.listdir(folder)) == ["job.txt", "weight_0000.bin", "weight_0001.bin"]


def test_fingerprints_tell_parts_apart():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(np.zeros(3), b"x") == fingerprint(np.zeros(3), b"x")
