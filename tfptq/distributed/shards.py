"""Shards of a dataset: what one worker reads at a time.

A shard is the path of a ``.npy`` file with samples, or of a ``.npz`` file with an array for each input, or a function
without arguments that returns an iterable of samples or ``(inputs, labels)``, as TFLite's ``representative_dataset``.
Labels in a ``.npz`` file are the array ``labels``, or ``labels:<output>`` for each of several outputs; calibration
ignores them.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfptq.base.text import kind_of
from tfptq.data.array_files import load_arrays
from tfptq.data.calibration import CalibrationData
from tfptq.data.checks import InputSpec
from tfptq.data.errors import DataError
from tfptq.data.open_dataset import open_dataset

Shard = str | os.PathLike | Callable[[], Iterable[Any]]

_SUFFIXES = (".npy", ".npz")
_LABELS = "labels"


def shards_of(source: Any) -> list[Shard]:
    """The shards that a user names: a list of them, or a folder of ``.npy`` and ``.npz`` files, by name.

    Raises:
        DataError: something else, or nothing in it.
    """
    if isinstance(source, str | os.PathLike):
        folder = Path(source)
        if not folder.is_dir():
            raise DataError(f"shards is {str(source)!r}, which is no folder; give one, or a list of files or functions")
        found: list[Shard] = [str(path) for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES]
        if not found:
            raise DataError(f"the folder {str(source)!r} holds no shards, which are .npy or .npz files")
        return found
    if not isinstance(source, Sequence) or isinstance(source, bytes):
        raise DataError(
            f"shards is {kind_of(source)}; give a folder, or a list of files or functions without arguments"
        )
    for shard in source:
        if not (callable(shard) or isinstance(shard, str | os.PathLike)):
            raise DataError(f"a shard is {kind_of(shard)}; it must be a file, or a function without arguments")
        if not callable(shard) and Path(shard).suffix not in _SUFFIXES:
            raise DataError(f"the shard {str(shard)!r} is no .npy or .npz file; give a function that reads it")
    if not source:
        raise DataError("there are no shards; give one at least")
    return list(source)


def samples_and_labels(shard: Shard) -> tuple[Any, Any]:
    """A shard as a dataset of ``tfptq.calibration_data``, and labels beside it, None where it has none.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    if callable(shard):
        return shard, None
    arrays = load_arrays(Path(shard), "shard")
    if isinstance(arrays, np.ndarray):
        return arrays, None
    prefix = f"{_LABELS}:"
    named = {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
    labels = arrays.pop(_LABELS, named or None)
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays, labels


def calibration_batches(
    shard: Shard, specs: tuple[InputSpec, ...], batch_size: int | None = None, fill: bool = False
) -> CalibrationData:
    """The samples of a shard as batches for a model; for the arguments and errors see ``CalibrationData``."""
    return CalibrationData(specs, *open_dataset(specs, samples_and_labels(shard)[0], batch_size), fill=fill)


@contextlib.contextmanager
def naming_shard(shard: Shard) -> Iterator[None]:
    """Say which shard a DataError in this context is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"shard {shard if isinstance(shard, str | os.PathLike) else repr(shard)}: {error}") from error
