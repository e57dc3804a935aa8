"""Keep finished weights on disk, so that a run that was killed goes on where it stopped.

A checkpoint folder belongs to one job, told by a fingerprint of the float model, the config, the seed, all samples and
the version of this package, and to one run at a time. Each finished weight is a file ``weight_0007.bin``, written
atomically: a line with the SHA-256 of the job, the number and all that follows; a line of JSON; the arrays, one after
the other, little-endian. A run loads exactly what it would have computed, so its output is the same to the byte.
Nothing that a file says is believed before it is checked.
"""

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfptq.base.files import write_atomically
from tfptq.base.json_object import read_object
from tfptq.core.affine import LARGEST_MULTIPLIER, LARGEST_SHIFT, SCALE_KINDS, WEIGHT_BITS, weight_code_range
from tfptq.core.blocks import BlockScales, QuantizedWeight

_FINGERPRINT_FILE = "job.txt"
#: What killed writes leave behind.
_LEFTOVER = re.compile(r"\.(job\.txt|weight_\d+\.bin)\.[0-9a-f]{16}\.tmp")
_HEADER_KEYS = {"bits", "block_shape", "kind", "rows_share_base", "shape"}
#: Bytes that a file may have beside its arrays.
_LARGEST_HEADER = 1024


def fingerprint(*parts: Any) -> str:
    """Hexadecimal digest of bytes, texts and arrays, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else bytes(part) if isinstance(part, bytes) else part.tobytes()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


class Checkpoint:
    """A folder of finished weights of one job, told by its fingerprint; made when it does not exist.

    Raises:
        ValueError: the folder holds the weights of another job, or something else in the place of what belongs there.
        OSError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: str | os.PathLike, job: str):
        self._folder, self._job = Path(folder), job
        self._folder.mkdir(parents=True, exist_ok=True)
        marker = self._folder / _FINGERPRINT_FILE
        if os.path.lexists(marker):
            if _read(marker, _LARGEST_HEADER) != job.encode():
                raise ValueError(
                    f"checkpoint_dir {self._folder} holds a run with another model, config, seed or dataset, or of "
                    "another version of tfptq; name another folder, or delete this one to start afresh. A dataset "
                    "that is shuffled differs from run to run: shuffle it with a seed and "
                    "reshuffle_each_iteration=False, or pass arrays"
                )
        elif any(self._folder.glob("weight_*.bin")):
            raise ValueError(
                f"checkpoint_dir {self._folder} holds finished weights and no {_FINGERPRINT_FILE}, which tells of what "
                "job they are; name another folder, or delete this one to start afresh"
            )
        else:
            write_atomically(marker, job)
        for path in self._folder.iterdir():
            if _LEFTOVER.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)

    def load(self, number: int, shape: tuple[int, int, int]) -> tuple[QuantizedWeight, np.ndarray] | None:
        """A finished weight and its bias shift, float32 ``[O]``, or None when it is not finished.

        Args:
            number: of the weight.
            shape: ``[O, I, T]`` that it must have.

        Raises:
            ValueError: the file is damaged, or another one.
            OSError: it cannot be read.
        """
        path = self._path(number)
        if not os.path.lexists(path):
            return None
        content = _read(path, _LARGEST_HEADER + 16 * math.prod(shape))
        digest, _, rest = content.partition(b"\n")
        try:
            if digest.decode("ascii", "replace") != self._digest(number, rest):
                raise ValueError("its digest differs")
            return unpack_weight(rest, shape)
        except ValueError as error:
            raise ValueError(
                f"checkpoint file {path} is damaged or of another job ({error}); delete it and run again"
            ) from error

    def save(self, number: int, weight: QuantizedWeight, bias_shift: np.ndarray) -> None:
        """Store a finished weight and its bias shift, float32 ``[O]``."""
        scales = weight.scales
        header = {
            "bits": weight.bits,
            "block_shape": list(map(int, scales.block_shape)),
            "kind": scales.kind,
            "rows_share_base": scales.base.size == 1,
            "shape": list(weight.codes.shape),
        }
        factors = "<f4" if scales.kind == "float" else "i1"
        arrays = ((scales.base, "<f4"), (scales.factors, factors), (weight.codes, "i1"), (bias_shift, "<f4"))
        packed = b"".join(np.asarray(values, dtype).tobytes() for values, dtype in arrays)
        rest = json.dumps(header).encode() + b"\n" + packed
        write_atomically(self._path(number), self._digest(number, rest).encode() + b"\n" + rest)

    def _path(self, number: int) -> Path:
        return self._folder / f"weight_{number:04d}.bin"

    def _digest(self, number: int, rest: bytes) -> str:
        return fingerprint(self._job, str(number), rest)


def unpack_weight(content: bytes, shape: tuple[int, int, int]) -> tuple[QuantizedWeight, np.ndarray]:
    """The weight and the bias shift in a file, without its digest; ``shape`` is ``[O, I, T]``.

    Raises:
        ValueError: it holds none, or another one.
    """
    header, _, data = content.partition(b"\n")
    return _Header.read(header, shape).unpack(data)


@dataclass(frozen=True)
class _Header:
    """What a file says of its arrays, checked against the shape ``[O, I, T]`` of the weight that it should hold."""

    kind: str
    bits: int
    block_shape: tuple[int, int]
    rows_share_base: bool
    shape: tuple[int, int, int]

    @classmethod
    def read(cls, text: bytes, shape: tuple[int, int, int]) -> "_Header":
        values = read_object(text.decode("utf-8"))
        _require(set(values) == _HEADER_KEYS, "its header is not known")
        _require(values["shape"] == list(shape), f"it has the shape {values['shape']}, expected {list(shape)}")
        blocks, bits, kind = values["block_shape"], values["bits"], values["kind"]
        pair = isinstance(blocks, list) and len(blocks) == 2 and all(type(size) is int and size > 0 for size in blocks)
        _require(pair, f"it has blocks of {blocks}")
        _require(type(bits) is int and bits in WEIGHT_BITS, f"it has {bits} bits")
        _require(kind in SCALE_KINDS and type(values["rows_share_base"]) is bool, f"it has scales of the kind {kind!r}")
        return cls(kind, bits, (blocks[0], blocks[1]), values["rows_share_base"], shape)

    @property
    def factors(self) -> tuple[int, int]:
        """``(V, H)``."""
        (outputs, inputs, _), (m, n) = self.shape, self.block_shape
        return -(-outputs // m), -(-inputs // n)

    def unpack(self, data: bytes) -> tuple[QuantizedWeight, np.ndarray]:
        """The weight and the bias shift."""
        rows, columns = self.factors
        factors = rows * columns, "<f4" if self.kind == "float" else "i1"
        base = 1 if self.rows_share_base else rows, "<f4"
        parts = [base, factors, (math.prod(self.shape), "i1"), (self.shape[0], "<f4")]
        sizes = [size * np.dtype(dtype).itemsize for size, dtype in parts]
        _require(len(data) == sum(sizes), f"it has {len(data)} bytes of numbers, expected {sum(sizes)}")
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        read = (
            np.frombuffer(data, dtype, size, start).astype(np.dtype(dtype).newbyteorder("="))
            for (size, dtype), start in zip(parts, starts, strict=True)
        )
        bases, multiples, codes, shift = read
        low, high = weight_code_range(self.bits)
        _require(low <= codes.min() <= codes.max() <= high, f"a code is not between {low} and {high}")
        _require(bool(np.isfinite(shift).all()), "a bias is not finite")
        scales = BlockScales(self.kind, bases, multiples.reshape(self.factors), self.block_shape)
        self._check_scales(scales)
        return QuantizedWeight(codes.reshape(self.shape), scales, self.bits), shift

    def _check_scales(self, scales: BlockScales) -> None:
        limits = {"float": (0.0, np.inf), "integer": (1, LARGEST_MULTIPLIER), "shift": (-LARGEST_SHIFT, LARGEST_SHIFT)}
        low, high = limits[self.kind]
        with np.errstate(all="ignore"):
            values = np.concatenate([scales.values().reshape(-1), scales.base])
            in_range = ((scales.factors >= low) & (scales.factors <= high)).all() and (values > 0).all()
            finite = np.isfinite(128 * values).all()  # so that weights are
            _require(bool(in_range and finite), "a scale is out of range")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _read(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most ``most`` bytes; a ValueError that names it for anything else."""
    if not path.is_file():
        raise ValueError(f"checkpoint file {path} is no file; delete it and run again")
    if path.stat().st_size > most:
        raise ValueError(f"checkpoint file {path} is damaged (too large); delete it and run again")
    return path.read_bytes()
