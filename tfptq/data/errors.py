"""What is wrong with calibration data, said to the user.

Without Keras and TensorFlow, so that what runs files only can name the samples as well.
"""

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
    """Inside this context, what TensorFlow or LiteRT cannot compute is the fault of the calibration samples.

    Raises:
        DataError: with the reason, such as a token id that an ``Embedding`` has no row for.
    """
    try:
        yield
    except _failures() as error:
        lines = _MARKUP.sub("", str(error)).splitlines()
        reason = next((line.strip().rstrip(".") for line in lines if not _HEADER.match(line)), type(error).__name__)
        raise DataError(
            f"the model fails on the calibration samples: {reason}; give samples that model.predict takes, token ids "
            "below input_dim of their Embedding among them"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What a computation raises: LiteRT's error, and TensorFlow's, which only a TensorFlow that is loaded can raise."""
    tensorflow = sys.modules.get("tensorflow")
    return (RuntimeError,) if tensorflow is None else (tensorflow.errors.InvalidArgumentError, RuntimeError)
