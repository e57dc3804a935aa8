"""What a process that computes for another one runs: functions that were stored in a file, called with their arguments.

A function may hold a whole model. So it is stored once, and each process reads it once, however many calls follow.
"""

import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tfptq.base.cpus import share_cpus
from tfptq.base.quiet import quiet_import


def start(processes: int) -> None:
    """Be one of so many processes on this machine."""
    share_cpus(processes)


def call(stored: str, argument: bytes) -> bytes:
    """Call a function that is stored in a file with an argument; both and the result are packed."""
    return packed(_function(stored)(unpacked(argument)))


@lru_cache(maxsize=1)
def _function(stored: str) -> Callable[[Any], Any]:
    return unpacked(Path(stored).read_bytes())


def packed(value: Any) -> bytes:
    """A value for ``unpacked``, there or here."""
    return pickle.dumps(value)


def unpacked(content: bytes) -> Any:
    """What was packed. That imports TensorFlow the first time, quietly."""
    with quiet_import():
        return pickle.loads(content)
