"""Arrays from files of numpy that nobody has vouched for: ``.npy`` and ``.npz``.

numpy and zipfile believe what a file says of itself: they ask for memory before they read, open pipes, and raise a
dozen kinds of errors. Here a file is one array or some, or one ValueError that names it.
"""

import warnings
import zipfile
from pathlib import Path

import numpy as np

from tfptq.base.memory import physical_memory

#: Deflate makes no more than this of a byte.
_MOST_OF_A_BYTE = 1032
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: By which numpy tells an archive; the second is one of nothing.
_ARCHIVE_STARTS = (b"PK\3\4", b"PK\5\6")
_ENCRYPTED = 1  # bit of the flags of a member


def load_arrays(path: str | Path, what: str) -> np.ndarray | dict[str, np.ndarray]:
    """What is in a file of numpy: one array, which is mapped and not read, or all of an archive, by name.

    Args:
        path: the file. What it holds decides, not its name.
        what: what it should hold, for messages.

    Raises:
        ValueError: neither, damaged, or with Python objects in it.
        OSError: no such file, or it cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"cannot read {what} {path}: it is no file")
    try:
        with open(path, "rb") as file:
            is_archive = file.read(4) in _ARCHIVE_STARTS
        if is_archive:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on headers of Python 2
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy and zipfile raise all kinds, from SyntaxError to MemoryError
        raise ValueError(f"cannot read {what} {path}: {_reason(error)}") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that takes more memory than there is, or than its bytes can make, or that cannot be read."""
    size, total, memory = path.stat().st_size, 0, physical_memory()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & _ENCRYPTED:
                raise ValueError(f"{member.filename!r} in it is encrypted")
            if member.compress_type not in _COMPRESSIONS:
                raise ValueError(f"{member.filename!r} in it is compressed in a way that numpy does not write")
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename!r} in it is no array; save arrays with numpy.savez")
            total += member.file_size
            if member.file_size > _MOST_OF_A_BYTE * size:
                raise ValueError(f"{member.filename!r} in it says that it has {member.file_size:,} bytes")
            if memory is not None and total > memory:
                raise ValueError(f"its arrays take {total:,} bytes, more than the memory of this machine")
            with archive.open(member) as stream:
                _check_header(stream, member)


def _check_header(stream, member: zipfile.ZipInfo) -> None:
    """Refuse an array that says to be larger than its bytes: numpy asks for the memory before it reads."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    count = 1
    for length in shape:
        count *= int(length)
    if dtype.hasobject:
        raise ValueError(f"{member.filename!r} in it holds Python objects")
    if count * dtype.itemsize > member.file_size or min(shape, default=0) < 0:
        found = f"says to be {dtype} of shape {shape}, and has {member.file_size:,} bytes"
        raise ValueError(f"{member.filename!r} in it {found}")


def _reason(error: Exception) -> str:
    if "pickle" in str(error) or "Python objects" in str(error):
        return "it is no file of numpy, or holds Python objects; write arrays of numbers with numpy.save or numpy.savez"
    return str(error) or type(error).__name__
