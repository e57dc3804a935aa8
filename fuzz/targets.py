"""What is fuzzed: each target has a corpus of good files, and a check that ends for any bytes.

A check returns whether the bytes were accepted. Everything that it raises is a bug, but the errors that the reader
states are refusals.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from tfptq.base.json_object import read_object
from tfptq.config import PRESETS, QuantizationConfig
from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.data.array_files import load_arrays
from tfptq.fit.checkpoint import Checkpoint, unpack_weight
from tfptq.npu import Executor
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.inspect import inspect
from tfptq.tflite.metadata import read
from tfptq.tflite.verify import verify

CONFORMANCE = Path(__file__).parents[1] / "tests" / "conformance"
_SHAPE = (4, 6, 2)


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        corpus: makes the good files.
        check: reads any bytes.
        marker: half of the changes are made behind it.
    """

    corpus: Callable[[], list[bytes]]
    check: Callable[[bytes], bool]
    marker: bytes = b""


@contextlib.contextmanager
def any_checksum() -> Iterator[None]:
    """Let records with wrong checksums pass: nothing that is changed in one would be read any further."""
    with mock.patch("tfptq.tflite.weight_records.checksum", return_value=mock.ANY):
        yield


def _read_file(data: bytes) -> bool:
    """All that reads ``.tflite`` files; whether the reader, and not the verifier, accepts it."""
    accepted = False
    for function in (read, verify, inspect, Executor):
        with contextlib.suppress(FormatError):
            found = function(data)
            accepted |= function is read
            if hasattr(found, "render"):
                shown = found.render()
                assert shown.replace("\n", "").isprintable(), "a control character reaches the terminal"
                json.loads(found.to_json())
    return accepted


def _files() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CONFORMANCE.rglob("*.tflite"))]


def _read_checkpoint(data: bytes) -> bool:
    with contextlib.suppress(ValueError):
        weight, shift = unpack_weight(data, _SHAPE)
        assert weight.codes.shape == _SHAPE and np.isfinite(shift).all() and np.isfinite(weight.dequantize()).all()
        return True
    return False


def _checkpoints() -> list[bytes]:
    rng, files = np.random.default_rng(0), []
    scales = (
        BlockScales("float", np.ones(1, np.float32), rng.uniform(0.1, 1, (2, 3)).astype(np.float32), (2, 2)),
        BlockScales("integer", np.float32([0.5, 2]), rng.integers(1, 17, (2, 3)).astype(np.int8), (2, 2)),
        BlockScales("shift", np.float32([0.5]), rng.integers(-15, 1, (4, 1)).astype(np.int8), (1, 6)),
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, blocks in enumerate(scales):
            weight = QuantizedWeight(rng.integers(-8, 8, _SHAPE).astype(np.int8), blocks, 4)
            Checkpoint(folder, "job").save(number, weight, rng.normal(size=4).astype(np.float32))
            files.append((Path(folder) / f"weight_{number:04d}.bin").read_bytes().partition(b"\n")[2])
    return files


def _read_arrays(data: bytes) -> bool:
    with tempfile.NamedTemporaryFile(suffix=".npz", dir=_memory_folder()) as file, contextlib.suppress(ValueError):
        file.write(data)
        file.flush()
        load_arrays(file.name, "data")
        return True
    return False


def _memory_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _arrays() -> list[bytes]:
    arrays = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "y": np.zeros((3, 2), np.int64)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.save(path / "a.npy", arrays["x"])
        np.savez(path / "b.npz", **arrays)
        np.savez_compressed(path / "c.npz", **arrays)
        return [found.read_bytes() for found in sorted(path.iterdir())]


def _read_config(data: bytes) -> bool:
    with contextlib.suppress(ValueError):
        text = data.decode("utf-8")
        read_object(text)
        config = QuantizationConfig.from_json(text)
        assert QuantizationConfig.from_json(config.to_json()) == config
        return True
    return False


def _configs() -> list[bytes]:
    presets = [QuantizationConfig.from_preset(name) for name in PRESETS]
    return [text.encode() for config in presets for text in (config.to_json(), config.to_compact_json())]


TARGETS = {
    "tflite": Target(_files, _read_file, b"TPQB"),
    "checkpoint": Target(_checkpoints, _read_checkpoint),
    "arrays": Target(_arrays, _read_arrays),
    "config": Target(_configs, _read_config),
}
