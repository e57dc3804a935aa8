"""Keep finished weights on disk, so that a run that was killed goes on where it stopped.

A checkpoint folder belongs to one job, told by a fingerprint of the float model, the config, the seed, all samples and
the version of this package.
Each finished weight is a file ``weight_0007.npz``, written atomically. A run loads exactly what it would have
computed, so its output is the same to the byte.
"""

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfptq.base.files import write_atomically
from tfptq.core.blocks import BlockScales, QuantizedWeight

_FINGERPRINT_FILE = "job.txt"


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
        ValueError: the folder holds the weights of another job.
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike, job: str):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        marker = self._folder / _FINGERPRINT_FILE
        if not marker.exists():
            write_atomically(marker, job)
        elif marker.read_text() != job:
            raise ValueError(
                f"checkpoint_dir {self._folder} holds a run with another model, config, seed or dataset, or of another "
                "version of tfptq; name another folder, or delete this one to start afresh. A dataset that is shuffled "
                "differs from run to run: shuffle it with a seed and reshuffle_each_iteration=False, or pass arrays"
            )

    def load(self, number: int) -> tuple[QuantizedWeight, np.ndarray] | None:
        """The finished weight of a number and its bias shift, float32 ``[O]``, or None when it is not finished.

        Raises:
            ValueError: the file is damaged.
        """
        path = self._path(number)
        if not path.exists():
            return None
        try:
            with np.load(path) as stored:
                arrays = dict(stored)
            m, n = map(int, arrays["block_shape"])
            scales = BlockScales(str(arrays["kind"]), arrays["base"], arrays["factors"], (m, n))
            return QuantizedWeight(arrays["codes"], scales, int(arrays["bits"])), arrays["bias_shift"]
        except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"checkpoint file {path} is damaged ({error}); delete it and run again") from error

    def save(self, number: int, weight: QuantizedWeight, bias_shift: np.ndarray) -> None:
        """Store a finished weight and its bias shift, float32 ``[O]``."""
        stream = io.BytesIO()
        np.savez(
            stream,
            kind=weight.scales.kind,
            base=weight.scales.base,
            factors=weight.scales.factors,
            block_shape=weight.scales.block_shape,
            codes=weight.codes,
            bits=weight.bits,
            bias_shift=bias_shift,
        )
        write_atomically(self._path(number), stream.getvalue())

    def _path(self, number: int) -> Path:
        return self._folder / f"weight_{number:04d}.npz"
