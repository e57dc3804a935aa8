"""Run a target on many changed files, within bounds of time and memory for each of them."""

import resource
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.mutations import mutated
from fuzz.targets import Target, any_checksum

#: Seconds, and bytes, that no input may take; corpus files take milliseconds and a few hundred kilobytes.
MOST_SECONDS, MOST_WALL_SECONDS, MOST_BYTES = 10, 120, 200_000_000


@dataclass(frozen=True)
class Outcome:
    """What came out of a run.

    Attributes:
        inputs: how many there were.
        accepted: how many of them were accepted.
        slowest: seconds of the slowest.
    """

    inputs: int
    accepted: int
    slowest: float


class DisagreementError(AssertionError):
    """Two readers: one accepts what the other refuses."""


def run(target: Target, inputs: int, seed: int, found: Path, accept: Path | None = None) -> Outcome:
    """Check changed files of a target; an input that fails is kept in the folder ``found``.

    Args:
        target: what to run.
        inputs: how many.
        seed: of the changes.
        found: folder; made when it is needed.
        accept: the program of ``cpp/accept_files.cc``, which shall accept and refuse the same.
    """
    rng, corpus, accepted, slowest = np.random.default_rng(seed), target.corpus(), 0, 0.0
    with any_checksum(), _other_reader(accept) as other:
        for number in range(inputs):
            data = mutated(corpus, rng, target.marker)
            start = time.monotonic()
            try:
                good = _bounded(target.check, data)
                if other is not None and other(data) != good:
                    raise DisagreementError(f"Python {'accepts' if good else 'refuses'} what C++ does not")
            except BaseException:
                found.mkdir(parents=True, exist_ok=True)
                (found / f"seed_{seed}_input_{number}").write_bytes(data)
                raise
            accepted += good
            slowest = max(slowest, time.monotonic() - start)
    return Outcome(inputs, accepted, slowest)


def _bounded(check: Callable[[bytes], bool], data: bytes) -> bool:
    """Run a check; a TimeoutError or MemoryError where it takes too much."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGPROF, _too_slow)
    signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # of the processor: other work is no fault of the reader
    signal.alarm(MOST_WALL_SECONDS)  # a reader that waits takes none
    try:
        good = check(data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MOST_BYTES:
        raise MemoryError(f"an input of {len(data)} bytes took {grown:,} bytes of memory")
    return good


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"an input took more than {MOST_SECONDS} s of the processor, or {MOST_WALL_SECONDS} s")


@contextmanager
def _other_reader(program: Path | None) -> Iterator[Callable[[bytes], bool] | None]:
    """Whether the reader of C++ accepts a file; None without the program."""
    if program is None:
        yield None
        return
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        writer, reader = process.stdin, process.stdout

        def accepts(data: bytes) -> bool:
            writer.write(struct.pack("<I", len(data)) + data)
            writer.flush()
            answer = reader.read(1)
            assert answer in (b"0", b"1"), "the program died"
            return answer == b"1"

        yield accepts
        writer.close()
