"""Data that nobody has vouched for: each ends in one line that names the file, and never in a traceback or a hang."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hand_made import VIEWS, FileBuilder, random_weight

from tfptq.cli import convert, inspect, sweep, verify
from tfptq.cli.calibration_files import load_calibration_data
from tfptq.data.array_files import load_arrays
from tfptq.data.checks import InputSpec

IMAGE = (InputSpec("image", (6, 4, 3), "float32"),)


# Arrays.


def npy(header, data=b"", version=b"\1\0"):
    text = header.encode("latin1")
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + data


def described(shape, dtype="<f4"):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


def archive(content, name="x.npy", method=zipfile.ZIP_STORED, change=lambda file: file):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr(name, content)
    return change(stream.getvalue())


ARRAYS = {
    "huge shape": archive(npy(described((2**40, 2**10)))),
    "shape below zero": archive(npy(described((-1, 8)))),
    "shape of no numbers": archive(npy(described("('a',)"))),
    "Python objects": archive(npy(described((4,), "|O"), b"\x80\x04N.")),
    "nested header": archive(npy("{'descr': " + "(" * 9000)),
    "nested unary": archive(npy("{'descr': " + "-" * 9000 + "1}")),
    "header of no dict": archive(npy("[1, 2]\n")),
    "header of names": archive(npy("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}\n")),
    "long header": archive(npy("{" + " " * 10**6 + "}", version=b"\2\0")),
    "unknown version": archive(b"\x93NUMPY\x09\0" + bytes(100)),
    "no array": archive(b"text", "notes.txt"),
    "bzip2": archive(npy(described((4,)), bytes(16)), method=zipfile.ZIP_BZIP2),
    "lzma": archive(npy(described((4,)), bytes(16)), method=zipfile.ZIP_LZMA),
    "encrypted": archive(
        npy(described((4,)), bytes(16)),
        change=lambda file: file.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
    ),
    "unknown compression": archive(
        npy(described((4,)), bytes(16)),
        change=lambda file: file.replace(b"PK\1\2\x14\3\x14\0\0\0\0\0", b"PK\1\2\x14\3\x14\0\0\0\x63\0"),
    ),
    "array of another header": npy(described((2**40, 2**20))),
    "array of nested header": npy("(" * 9000),
    "array of names": npy("{'descr': x.y, 'fortran_order': False, 'shape': (1,)}\n"),
    "array of a wild dtype": npy(described((4,), "<f3")),
    "array with half a header": npy(described((4,)))[:20],
    "directory of nothing": b"PK\5\6" + bytes(10),
    "bad deflate": archive(
        bytes(range(256)) * 40, method=zipfile.ZIP_DEFLATED, change=lambda file: file[:60] + b"\xff" * 40 + file[100:]
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_none(tmp_path, name):
    path = tmp_path / "data.npz"
    path.write_bytes(ARRAYS[name])
    with pytest.raises(ValueError, match=r"cannot read labels .*data\.npz: .") as raised:
        load_arrays(path, "labels")
    assert len(str(raised.value)) < 2000


def test_archives_that_say_to_be_larger_than_their_bytes(tmp_path):
    content = npy(described((2**33,)), bytes(64))
    size = len(content)
    lie = struct.pack("<II", size, 2**31), struct.pack("<II", size, size)
    (tmp_path / "data.npz").write_bytes(archive(content, change=lambda file: file.replace(lie[1], lie[0])))
    with pytest.raises(ValueError, match=r"'x\.npy' in it says that it has 2,147,483,648 bytes"):
        load_arrays(tmp_path / "data.npz", "data")


def test_archives_larger_than_the_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros(10**6))
    assert load_arrays(tmp_path / "data.npz", "data")["x"].size == 10**6
    monkeypatch.setattr("tfptq.data.array_files.physical_memory", lambda: 10**6)
    with pytest.raises(ValueError, match="more than the memory of this machine"):
        load_arrays(tmp_path / "data.npz", "data")


def test_a_pipe_is_no_array(tmp_path):
    os.mkfifo(tmp_path / "data.npy")
    with pytest.raises(ValueError, match=r"cannot read data .*data\.npy: it is no file"):
        load_arrays(tmp_path / "data.npy", "data")


# Pictures.


def png(width, height, depth=8, colour=2, body=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


PICTURES = {
    "400 megapixels": png(20_000, 20_000),
    "100 megapixels": png(10_000, 10_000),
    "more than can be": png(2**31 - 1, 2**31 - 1),
    "no pixels": png(0, 0),
    "without its pixels": png(64, 64),
    "odd depth": png(64, 64, depth=99),
    "wrong pixels": png(64, 64, body=b"\xff" * 100),
    "cut": png(64, 64)[:40],
    "text": b"no picture",
    "empty": b"",
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_none(tmp_path, name):
    (tmp_path / "a.png").write_bytes(PICTURES[name])
    with pytest.raises(ValueError, match=r"cannot read the image .*a\.png: ."):
        list(load_calibration_data(tmp_path, IMAGE, 0, 0, "raw")())


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_picture_at_all(tmp_path, make):
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"cannot read the image .*a\.png: it is no file"):
        load_calibration_data(tmp_path, IMAGE, 0, 0, "raw")


# Command lines.


def fails(program, arguments, code, message, capfd):
    assert program.main(["tool", *arguments]) == code
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("tool: ") and err.count("\n") == 1 and "Traceback" not in err
    assert message in err


def flags(files, **changes):
    values = {"model": files / "net.keras", "calibration_data": files / "samples.npy", "output": files / "no.tflite"}
    return [f"--{name}={value}" for name, value in {**values, **changes}.items()]


@pytest.mark.parametrize(
    "name", ["model", "calibration_data", "output", "report", "checkpoint_dir", "config", "custom_objects"]
)
def test_empty_flags(files, capfd, name):
    fails(convert, flags(files, **{name: ""}), 2, f"--{name} is empty", capfd)


@pytest.mark.parametrize("module", [".rel", "..", "a..b", "a b", "a/b", "os\0"])
def test_custom_objects_that_are_no_module(files, capfd, module):
    fails(convert, flags(files, custom_objects=module), 2, "is no name of a module", capfd)


@pytest.mark.parametrize("code", ["1 / 0", "def", "raise SystemExit(3)", "import sys; sys.setrecursionlimit(-1)"])
def test_custom_objects_that_fail(files, tmp_path, monkeypatch, capfd, code):
    (tmp_path / "failing_layers.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    fails(convert, flags(files, custom_objects="failing_layers"), 2, "failing_layers cannot be imported", capfd)


@pytest.mark.parametrize("text", ["[" * 600, '{"a": ' + "7" * 5000 + "}", '{"a": NaN}', '{"a": "\\ud800"}', "\xff"])
def test_configs(files, tmp_path, capfd, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    fails(convert, flags(files, config=tmp_path / "config.json"), 1, "config.json", capfd)


@pytest.mark.parametrize("value", ["layout=" + "(" * 9000, "layout=" + "[" * 9000, "layout=" + "-" * 9000 + "1"])
def test_values_of_fields(files, capfd, value):
    fails(convert, [*flags(files), f"--set={value}"], 2, "layout", capfd)


def test_pipes(files, tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe.keras")
    pipe = tmp_path / "pipe.keras"
    fails(convert, flags(files, config=pipe), 1, "pipe.keras: it is no file", capfd)
    fails(convert, flags(files, model=pipe), 1, "no model file", capfd)
    fails(convert, flags(files, output=pipe), 1, "it is a device or a pipe", capfd)
    fails(verify, [str(pipe)], 1, "no such file", capfd)


@pytest.mark.parametrize("name", ["a\0b", "a\0b.tflite"])
def test_paths_with_a_nul(files, capfd, name):
    for flag in ("model", "calibration_data", "output", "checkpoint_dir", "config"):
        assert convert.main(["tool", *flags(files, **{flag: name})]) in (1, 2)
        err = capfd.readouterr().err
        assert err.count("\n") == 1 and "Traceback" not in err and "\0" not in err


@pytest.mark.parametrize("program", [inspect, verify])
def test_a_file_larger_than_the_memory(tmp_path, capfd, program):
    with open(tmp_path / "huge.tflite", "wb") as file:
        file.truncate(2**42)
    fails(program, [str(tmp_path / "huge.tflite")], 1, "more than the memory of this machine", capfd)


STUDIES = ["[" * 600, "[]", '{"settings": 1, "cells": {}}', '{"settings": {}, "cells": {"a": {"bits": 4}}}', "\xff"]


@pytest.mark.parametrize("text", STUDIES)
def test_studies_that_are_none(files, tmp_path, capfd, text):
    (tmp_path / "cells.json").write_bytes(text.encode("latin1"))
    arguments = [
        f"--{name}={files / path}" for name, path in (("model", "net.keras"), ("calibration_data", "samples.npy"))
    ]
    fails(sweep, [*arguments, f"--output={tmp_path}", "--noplot"], 1, "cells.json is no study", capfd)


# Names.

NAME = "\x1b[2J\x9b31m\u202elayer\r\n\x7f"


@pytest.fixture
def named(tmp_path):
    """A file whose tensors and layers have names that a terminal would obey."""
    view = VIEWS["FULLY_CONNECTED"]((4, 4))
    builder = FileBuilder((1, 4)).layer(
        "FULLY_CONNECTED", random_weight(np.random.default_rng(0), view), view, name=NAME
    )
    builder.graph.tensors[0].name = NAME
    (tmp_path / "named.tflite").write_bytes(builder.finish())
    return tmp_path / "named.tflite"


@pytest.mark.parametrize("program", [inspect, verify])
def test_names_never_reach_the_terminal_as_they_are(named, capfd, program):
    assert program.main(["tool", str(named)]) == 0
    out = capfd.readouterr().out
    assert out.replace("\n", "").isprintable() and r"\x1b[2J\x9b31m\u202elayer\r\n\x7f" in out
    assert program.main(["tool", "--json", str(named)]) == 0
    out = capfd.readouterr().out
    assert out.isascii() and out.replace("\n", "").isprintable() and json.loads(out)


def test_errors_have_no_names_as_they_are(named, capfd):
    content = named.read_bytes()
    named.write_bytes(content.replace(b"layer\r\n\x7f/kernel", b"LAYER\r\n\x7f/kernel"))
    assert verify.main(["tool", str(named)]) == 1
    err = capfd.readouterr().err
    assert err.endswith("\n") and err[:-1].isprintable() and r"\x1b[2J" in err
