"""Writing files so that a reader never sees half of one, and reading such that nobody has vouched for.

The bytes go to a temporary file in the same folder and are flushed to disk; the file is then renamed over the
destination, which is atomic on POSIX and on Windows (``os.replace``).
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from tfptq.base.memory import physical_memory


def write_atomically(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write bytes, or text as UTF-8, to ``path``, all or nothing; returns the path.

    An existing file is replaced and keeps its permissions, and a link keeps its target.

    Raises:
        OSError: naming the path, also where the disk is full.
    """
    destination = Path(path)
    check_writable(destination)
    path = destination.resolve()
    payload = content.encode("utf-8") if isinstance(content, str) else content
    permissions = path.stat().st_mode & 0o777 if path.exists() else None
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(8)}.tmp"  # long names have no room for more
    try:
        with open(temporary, "xb", opener=_opener(permissions)) as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if permissions is not None:
            os.chmod(temporary, permissions)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error
        raise
    return destination


def read_whole(path: str | os.PathLike) -> bytes:
    """The bytes of a regular file that the memory holds.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is something else (a pipe would be waited for), larger than the memory, or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise OSError(f"cannot read {path}: it is no file")
    size, memory = path.stat().st_size, physical_memory()
    if memory is not None and size > memory:
        raise OSError(f"cannot read {path}: it has {size:,} bytes, more than the memory of this machine")
    return path.read_bytes()


def check_path(name: str, path: str | os.PathLike) -> None:
    """Refuse text that is no path; ``name`` is the argument that has it.

    Raises:
        ValueError: it is empty, or holds a NUL, which no file can have in its name.
    """
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"{name} is {text!r}; name a file or a folder")


def check_writable(path: str | os.PathLike) -> None:
    """Refuse a destination that cannot be written, before a long job is started for it."""
    check_path("the path to write", path)
    path = Path(path).resolve()
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {path}: it is a device or a pipe; name a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"cannot write {path}: the file is write-protected")
    check_takes_files(path.parent, path)


def check_folder(checkpoint_dir: str | os.PathLike | None) -> None:
    """Refuse a folder that could not be made or written, before the work. Nothing is made yet.

    Raises:
        ValueError: it is no path.
        NotADirectoryError: it is a file, or in one.
        OSError: no file can be made there.
    """
    if checkpoint_dir is None:
        return
    check_path("checkpoint_dir", checkpoint_dir)
    folder = Path(checkpoint_dir).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        within = "" if there == folder else f", in {str(there)!r}"
        raise NotADirectoryError(f"checkpoint_dir is {str(checkpoint_dir)!r}{within}, which is a file; name a folder")
    check_takes_files(there, folder)


def check_takes_files(folder: Path, path: Path) -> None:
    """Refuse an existing folder in which no file can be made; ``path`` is what shall be written there, for messages."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {path}: no permission to write in the folder {folder}")
    try:
        # Permissions do not tell all: in /proc, or on a disk that is mounted read-only, files cannot be made anyway.
        # On Linux the trial has no name, and nothing is left of it in any case.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: no file can be made in the folder {folder}: {error}") from error


def _opener(permissions: int | None) -> Callable[[str, int], int]:
    # A replacement is private until it gets the permissions of the old file. A new file has the usual ones, which the
    # system derives from the umask: reading that would mean to change it, for all threads.
    return lambda path, flags: os.open(path, flags, 0o666 if permissions is None else 0o600)
