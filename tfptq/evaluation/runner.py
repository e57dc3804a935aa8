"""Run ``.tflite`` files in LiteRT: real values in, real values out.

Several threads with an interpreter each share the batches. LiteRT lets go of Python's lock while it computes, so that
this is as fast as processes, which would have to start first and to be sent their samples; and it is faster than one
interpreter with several threads where kernels outside of XNNPACK compute: those of INT4 on two threads took 40 times as
long as on one.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfptq.base.quiet import quiet
from tfptq.data.checks import InputSpec
from tfptq.tflite.interface import InterfaceRow, read_interface
from tfptq.tflite.model_reader import read_model

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FileEnds:
    """The inputs and the outputs of a file, in its order."""

    inputs: tuple[InterfaceRow, ...]
    outputs: tuple[InterfaceRow, ...]

    @property
    def batch_size(self) -> int | None:
        """Number of samples that the file takes at once; None for any."""
        return self.inputs[0].shape[0]

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """What samples must be: real values where the file has codes."""
        kinds = ("float32" if row.scale is not None else row.dtype for row in self.inputs)
        return tuple(InputSpec(row.name, row.shape[1:], kind) for row, kind in zip(self.inputs, kinds, strict=True))


def file_ends(content: bytes) -> FileEnds:
    """The ends of a file; a FormatError if it is damaged, a ValueError if it takes no batches of samples."""
    rows = read_interface(read_model(content))
    ends = FileEnds(*(tuple(row for row in rows if row.end == end) for end in ("input", "output")))
    if not ends.inputs or not all(row.shape for row in ends.inputs):
        raise ValueError("the .tflite file has no inputs with a batch axis, so that it cannot be run on samples")
    return ends


def make_interpreter(content: bytes) -> Interpreter:
    """The stock interpreter of a file, on one thread."""
    with quiet():
        return Interpreter(model_content=content, num_threads=1)


class FileRunner:
    """Runs a file on one thread.

    Args:
        interpreter: an interpreter of the file.
        ends: the ends of the file.
    """

    def __init__(self, interpreter: Any, ends: FileEnds):
        self._interpreter, self._ends = interpreter, ends
        self._inputs = [details["index"] for details in interpreter.get_input_details()]
        self._outputs = [details["index"] for details in interpreter.get_output_details()]
        self._shapes: list[tuple[int, ...]] | None = None

    @classmethod
    def of(cls, content: bytes, ends: FileEnds | None = None) -> "FileRunner":
        """A runner of a file in the stock interpreter."""
        return cls(make_interpreter(content), ends or file_ends(content))

    def run(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Real values ``[samples, ...]`` of each output; integers of those without a scale.

        Args:
            samples: real values ``[samples, ...]`` for each input, in the order of the file.
        """
        count, size = len(samples[0]), self._ends.batch_size
        codes = [to_codes(values, row) for values, row in zip(samples, self._ends.inputs, strict=True)]
        starts = range(0, count, size or count)
        parts = [self._once([_filled(values[at : at + (size or count)], size) for values in codes]) for at in starts]
        joined = [np.concatenate(values)[:count] for values in zip(*parts, strict=True)]
        return [from_codes(values, row) for values, row in zip(joined, self._ends.outputs, strict=True)]

    def _once(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = [values.shape for values in batch]
        if shapes != self._shapes:
            for index, shape in zip(self._inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            with quiet():
                self._interpreter.allocate_tensors()
            self._shapes = shapes
        for index, values in zip(self._inputs, batch, strict=True):
            self._interpreter.set_tensor(index, values)
        self._interpreter.invoke()
        found = [self._interpreter.get_tensor(index) for index in self._outputs]
        for row, values in zip(self._ends.outputs, found, strict=True):
            if values.shape[:1] != (len(batch[0]),):
                raise ValueError(
                    f"the output {row.name!r} of the file has the shape {list(values.shape)} for {len(batch[0])} "
                    "samples; only outputs with a batch axis can be evaluated"
                )
        return found


def to_codes(values: np.ndarray, row: InterfaceRow) -> np.ndarray:
    """Real values as an input takes them: ``round(x / scale) + zero_point`` where it has a scale."""
    if row.scale is None:
        return values.astype(row.dtype, copy=False)
    limits = np.iinfo(row.dtype)
    with np.errstate(over="ignore"):  # masks go down to the least float32
        return np.clip(np.rint(values / np.float32(row.scale)) + row.zero_point, limits.min, limits.max).astype(
            row.dtype
        )


def from_codes(values: np.ndarray, row: InterfaceRow) -> np.ndarray:
    """Real values of what an output holds."""
    if row.scale is None:
        return values
    return (values.astype(np.float32) - np.float32(row.zero_point or 0)) * np.float32(row.scale)


def _filled(values: np.ndarray, size: int | None) -> np.ndarray:
    """Values with samples repeated, in turn, until there are ``size``."""
    return values if size in (None, len(values)) else values[np.arange(size) % len(values)]


def in_threads(
    make_work: Callable[[], Callable[[Item], Result]], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """``work(item)`` for each item, in order, on several threads; a few items are read ahead, not all.

    Args:
        make_work: called once on each thread; returns what that thread does with items.
        items: read by the thread that iterates over the result.
        threads: how many.
    """
    own = threading.local()

    def work(item: Item) -> Result:
        if not hasattr(own, "work"):
            own.work = make_work()
        return own.work(item)

    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
