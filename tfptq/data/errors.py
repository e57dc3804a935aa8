"""Errors of calibration data. Imports neither Keras nor TensorFlow, so that programs on files can use it."""

import contextlib
import re
import sys
from collections.abc import Iterator

#: What Keras and TensorFlow put around the reason of a failure, and lines in front of it.
_MARKUP = re.compile(r"\x1b\[\d*m|\{\{.*?\}\}\s*|\s*\[Op:.*?\]")
_HEADER = re.compile(r"\s*($|Exception encountered|Graph execution error|Detected at|File )")


class DataError(ValueError):
    """Calibration data that does not fit the model, or cannot be used."""


@contextlib.contextmanager
def blaming_samples() -> Iterator[None]:
    """Turn what TensorFlow or LiteRT cannot compute in this context into a DataError about the calibration samples."""
    try:
        yield
    except _failures() as error:
        lines = _MARKUP.sub("", str(error)).splitlines()
        reason = next((line.strip().rstrip(".") for line in lines if not _HEADER.match(line)), type(error).__name__)
        raise DataError(
            f"the model fails on the calibration samples: {reason}; give samples that model.predict takes, token ids "
            "below input_dim of their Embedding among them"
        ) from error


@contextlib.contextmanager
def naming_evaluation() -> Iterator[None]:
    """Say evaluation where a DataError in this context says calibration: both read the same kinds of datasets."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace("calibration", "evaluation")) from error


def _failures() -> tuple[type[Exception], ...]:
    # What LiteRT raises, and TensorFlow, which only a TensorFlow that is loaded can raise.
    tensorflow = sys.modules.get("tensorflow")
    return (RuntimeError,) if tensorflow is None else (tensorflow.errors.InvalidArgumentError, RuntimeError)
