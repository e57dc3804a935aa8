"""Files of measurements: what one machine has measured of its shard, for another one to add up.

A file is a zip archive of arrays, as ``numpy.savez`` makes it.
"""

import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tfptq.base.files import read_whole, write_atomically
from tfptq.core.histograms import Histogram
from tfptq.core.ranges import TensorStatistics
from tfptq.fit.measurements import Measurements, TapSums

_VERSION = 2


def save_measurements(measurements: Measurements, path: str | os.PathLike) -> Path:
    """Write measurements for ``load_measurements``, all of them or nothing.

    Raises:
        OSError: the path cannot be written.
    """
    content = BytesIO()
    np.savez(content, allow_pickle=False, **_packed(measurements))
    return write_atomically(path, content.getvalue())


def load_measurements(path: str | os.PathLike) -> Measurements:
    """Read what ``save_measurements`` wrote.

    Raises:
        ValueError: the file holds something else, or is damaged.
        OSError: it cannot be read.
    """
    content = read_whole(path)
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            return _unpacked(arrays)
    except Exception as error:  # numpy and zipfile raise all kinds, from SyntaxError to NotImplementedError
        raise ValueError(f"{path} holds no measurements of tfptq, or is damaged: {error}") from error


def _packed(measurements: Measurements) -> dict[str, Any]:
    tensors = list(measurements.tensors.items())
    sums = list(measurements.sums.items())
    arrays: dict[str, Any] = {
        "version": _VERSION,
        "float_file": measurements.float_file,
        "samples": measurements.samples,
        "inputs": np.array(sorted(measurements.inputs), np.int64),
        "constants": np.array(sorted(measurements.constants), np.int64),
        "clipped": np.array(sorted(measurements.clipped), np.int64),
        "limits": np.array([measurements.clipped[index] for index in sorted(measurements.clipped)]).reshape(-1, 2),
        "tensors": np.array([(index, it.bins, it.count) for index, it in tensors], np.int64).reshape(-1, 3),
        "extremes": np.array([(it.minimum, it.maximum) for _, it in tensors], np.float64).reshape(-1, 2),
        "sums": np.array([(*reader, it.positions) for reader, it in sums], np.int64).reshape(-1, 3),
    }
    for number, (_, found) in enumerate(tensors):
        counted = found.histogram
        if counted is not None:
            arrays[f"histogram {number}"] = np.array([counted.exponent, counted.zeros, *counted.counts], np.int64)
            arrays[f"range {number}"] = np.array([counted.low, counted.high], np.float64)
    return arrays | {f"sum {number}": found.total for number, (_, found) in enumerate(sums)}


def _unpacked(arrays: Mapping[str, np.ndarray]) -> Measurements:
    if arrays["version"] != _VERSION:
        raise ValueError(f"it has version {arrays['version']}, and this release reads {_VERSION}")
    sums = {
        (operator, tensor): TapSums(_positive(positions), _finite(arrays[f"sum {number}"]))
        for number, (operator, tensor, positions) in enumerate(arrays["sums"].tolist())
    }
    limits = zip(arrays["clipped"].tolist(), arrays["limits"].tolist(), strict=True)
    return Measurements(
        float_file=str(arrays["float_file"]),
        tensors=dict(_tensors(arrays)),
        inputs=frozenset(arrays["inputs"].tolist()),
        constants=frozenset(arrays["constants"].tolist()),
        clipped={index: (low, high) for index, (low, high) in limits},
        sums=sums,
        samples=_positive(int(arrays["samples"])),
    )


def _tensors(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[int, TensorStatistics]]:
    rows = zip(arrays["tensors"].tolist(), _finite(arrays["extremes"]).tolist(), strict=True)
    for number, ((index, bins, count), (low, high)) in enumerate(rows):
        found = TensorStatistics(_positive(bins))
        found.count, found.minimum, found.maximum = _positive(count), low, high
        exponent, zeros, *counts = arrays[f"histogram {number}"].tolist()
        least, largest = _finite(arrays[f"range {number}"]).tolist()
        found.histogram = Histogram(least, largest, exponent, np.array(counts, np.int64), zeros, bins)
        if found.histogram.widened(least, largest).exponent != exponent or min(counts) < 0:
            raise ValueError(f"the histogram of tensor {index} is none of its range")
        yield index, found


def _finite(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.float64 or not np.isfinite(values).all():
        raise ValueError("a number in it is not finite, or of another type")
    return values


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(f"a count in it is {number}")
    return number
