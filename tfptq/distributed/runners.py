"""Where the work on shards is done: one operation, the sum of a function over them.

What a function returns is a value of sums: ``a + b`` is what it returns for both shards. So the order and the place of
the additions do not matter, but for the rounding of float64.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import reduce
from multiprocessing import get_context
from operator import add
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tfptq.base import worker

Value = TypeVar("Value")


class Runner(Protocol):
    """What sums a function over shards."""

    def sum(self, function: Callable[[Any], Value], shards: Sequence[Any]) -> Value:
        """The sum of ``function(shard)`` over all shards, of which there is one at least.

        Args:
            function: can be pickled; what it returns, too, and that adds up.
            shards: can be pickled.
        """


class InProcess:
    """One shard after the other in this process."""

    def sum(self, function: Callable[[Any], Value], shards: Sequence[Any]) -> Value:
        """See ``Runner.sum``."""
        return reduce(add, map(function, shards))


class Processes:
    """Several processes of this machine, which are started when they are first needed and stay until ``close``.

    Values are added in the order of the shards, so that any number of processes gives the same bytes. The program that
    starts processes needs ``if __name__ == "__main__":``, as with ``multiprocessing`` (start method "spawn").

    Args:
        workers: number of processes; they share the processors.

    Attributes:
        sent: bytes that went to the processes so far: functions, once to each, and shards.
        received: bytes that came back.
    """

    def __init__(self, workers: int):
        if workers < 1:
            raise ValueError(f"workers is {workers}; it must be at least 1")
        self.workers = workers
        self.sent = self.received = 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def sum(self, function: Callable[[Any], Value], shards: Sequence[Any]) -> Value:
        """See ``Runner.sum``.

        Raises:
            TypeError: the function or a shard cannot be pickled.
        """
        stored, arguments = pickled(function), [pickled(shard) for shard in shards]
        self.sent += len(stored) * min(self.workers, len(shards)) + sum(map(len, arguments))
        with tempfile.TemporaryDirectory(prefix="tfptq-") as folder:
            path = Path(folder) / "function"
            path.write_bytes(stored)
            return reduce(add, self._results(str(path), arguments))

    def _results(self, path: str, arguments: Sequence[bytes]) -> Iterator[Any]:
        """What the function gives of each argument, in order; a few are computed ahead, not all."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=worker.start, initargs=(self.workers,)
            )
        waiting: deque[Future[bytes]] = deque()
        try:
            for argument in arguments:
                waiting.append(self._pool.submit(worker.call, path, argument))
                if len(waiting) > 2 * self.workers:
                    yield self._received(waiting.popleft())
            while waiting:
                yield self._received(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def _received(self, future: Future[bytes]) -> Any:
        content = future.result()
        self.received += len(content)
        return worker.unpacked(content)


def pickled(value: Any) -> bytes:
    """A function or a shard as other processes take it.

    Raises:
        TypeError: it cannot be pickled.
    """
    try:
        return worker.packed(value)
    except Exception as error:  # pickle raises all kinds
        raise TypeError(
            f"{value!r} cannot be sent to other processes ({error}); give paths, functions at the top of a module, or "
            "functools.partial of these"
        ) from error
