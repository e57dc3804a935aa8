"""Keep what TensorFlow, the converter and XNNPACK write to standard error off the screen.

Native code writes to file descriptor 2, past Python's ``sys.stderr``. So the descriptor itself is turned to a file: the
one that the environment variable ``TFPTQ_LOG`` names, or one that is gone at the end. There is one such descriptor for
the whole process, and other threads write to it, too: only calls of libraries belong in ``quiet``, never a user's code.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, TextIO

#: Environment variable with the path of the log; lines are added at its end.
LOG = "TFPTQ_LOG"
#: An error has so many characters from the beginning of what was written, and as many from the end.
SHOWN = 2000
STANDARD_ERROR = 2
#: How lines of information and warnings start, which errors do not repeat.
_ROUTINE = re.compile(r"[IW]\d{4} |INFO: |WARNING: |\s*$")


class _Redirection:
    """Standard error turned to a file, from the first thread that wants it until the last."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users = 0
        self._real: int | None = None  # standard error as it was; None if it is closed
        self.file: IO[bytes]

    def enter(self) -> int:
        """Turn standard error away, if it is not yet; returns the length of the file so far."""
        with self._lock:
            _flush()
            if not self._users:
                self._turn()
            self._users += 1
            return os.fstat(self.file.fileno()).st_size

    def _turn(self) -> None:
        self._real = _copy(STANDARD_ERROR)
        try:
            self.file = _open_log()
        except OSError:
            if self._real is not None:
                os.close(self._real)
            raise
        if self.file.fileno() != STANDARD_ERROR:  # the file has that number where standard error was closed
            os.dup2(self.file.fileno(), STANDARD_ERROR)

    def leave(self, printed: str) -> None:
        """Add a text to the file, and turn standard error back, if nobody needs it away."""
        with self._lock:
            _flush()
            try:
                self.file.write(printed.encode("utf-8", errors="replace"))
            finally:
                self._users -= 1
                if not self._users:
                    self._turn_back()

    def _turn_back(self) -> None:
        if self._real is not None:
            os.dup2(self._real, STANDARD_ERROR)
            os.close(self._real)
        elif self.file.fileno() != STANDARD_ERROR:
            os.close(STANDARD_ERROR)
        self.file.close()

    def written(self, start: int) -> str:
        """What is in the file from a position on."""
        with self._lock:
            _flush()
            self.file.seek(start)
            return self.file.read().decode("utf-8", errors="replace")  # which ends where writing goes on

    def real(self) -> int | None:
        """A copy of the descriptor of standard error as it is outside; None if it is closed."""
        with self._lock:
            if not self._users:
                return _copy(STANDARD_ERROR)
            return None if self._real is None else _copy(self._real)


_redirection = _Redirection()


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Turn standard error to the log; yields a text for what Python code prints, which is added to the log.

    May be nested, and used by several threads at once. What native code wrote becomes a note of an exception.

    Raises:
        OSError: the file that ``TFPTQ_LOG`` names cannot be written.
    """
    start, printed = _redirection.enter(), io.StringIO()
    try:
        yield printed
    except Exception as error:
        _add_note(error, start)
        raise
    finally:
        _redirection.leave(printed.getvalue())


@contextlib.contextmanager
def overhear() -> Iterator[Callable[[], str]]:
    """Turn standard error to the log; yields a function that returns what has been written to it so far."""
    start = _redirection.enter()
    try:
        yield lambda: _redirection.written(start)
    finally:
        _redirection.leave("")


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """``quiet`` for imports that may load TensorFlow, which tells of processors and missing GPUs.

    ``TF_CPP_MIN_LOG_LEVEL`` silences its later lines, unless it is set already.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        yield


def real_standard_error() -> TextIO | None:
    """A stream to standard error that writes to the screen within ``quiet``, too; None where it is closed."""
    descriptor = _redirection.real()
    return None if descriptor is None else open(descriptor, "w", encoding="utf-8", errors="replace")


def _open_log() -> IO[bytes]:
    path = os.environ.get(LOG)
    if not path:
        return tempfile.TemporaryFile(buffering=0)
    try:
        return open(path, "ab+", buffering=0)
    except OSError as error:
        raise OSError(f"the log that {LOG} names cannot be written: {error}") from error


def _add_note(error: Exception, start: int) -> None:
    """Attach what was written from a position on, unless an inner ``quiet`` has attached its part."""
    head = "TensorFlow and LiteRT wrote to standard error:"
    lines = _redirection.written(start).splitlines()
    written = "\n".join(line for line in lines if not _ROUTINE.match(line))
    notes = vars(error).setdefault("__notes__", [])  # as add_note does, which is of Python 3.11
    if not written or any(note.startswith(head) for note in notes):
        return
    if len(written) > 2 * SHOWN:
        written = f"{written[:SHOWN]}\n...\n{written[-SHOWN:]}"
    notes.append(f"{head}\n{written}")


def _copy(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None


def _flush() -> None:
    """Let what Python code has written go where it was meant to go. A stream may be missing, or closed."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stderr.flush()
