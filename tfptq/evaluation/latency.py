"""Time of one inference: interleaved runs of several files in one process, so that all see the same machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_edge_litert.interpreter import Interpreter

#: Runs of each file before the clock counts: weights are packed on the first one.
WARM_UP = 5


@dataclass(frozen=True)
class Latency:
    """Median time of one inference on one thread.

    Attributes:
        milliseconds: of the file.
        float_milliseconds: of the float model, or None.
        runs: inferences of each.
    """

    milliseconds: float
    float_milliseconds: float | None
    runs: int

    @property
    def ratio(self) -> float | None:
        """Time of the file as a multiple of that of the float model."""
        return None if self.float_milliseconds is None else self.milliseconds / self.float_milliseconds


def interleaved_milliseconds(
    invokes: Sequence[Callable[[int], float]], seconds: float, least_runs: int = 5
) -> tuple[list[float], int]:
    """Medians of what several functions take, and how often each ran: A B, B A, ... until the time is over.

    Args:
        invokes: each runs once, on the sample of the number that it is given, and returns its seconds.
        seconds: how long to measure.
        least_runs: so many runs at least.
    """
    times: list[list[float]] = [[] for _ in invokes]
    for invoke in invokes:
        for index in range(WARM_UP):
            invoke(index)
    order, end, index = list(range(len(invokes))), time.perf_counter() + seconds, 0
    while time.perf_counter() < end or index < least_runs:
        for which in order if index % 2 else reversed(order):
            times[which].append(invokes[which](index))
        index += 1
    return [statistics.median(each) * 1e3 for each in times], index


def timed(interpreter: Interpreter, samples: Sequence[Sequence]) -> Callable[[int], float]:
    """A function that runs an interpreter with allocated tensors once, and returns the seconds that took.

    Args:
        interpreter: of any build of the runtime.
        samples: for each sample the codes of each input, in its order; they are used in turn.
    """
    indexes = [details["index"] for details in interpreter.get_input_details()]

    def invoke(number: int) -> float:
        for index, values in zip(indexes, samples[number % len(samples)], strict=True):
            interpreter.set_tensor(index, values)
        start = time.perf_counter()
        interpreter.invoke()
        return time.perf_counter() - start

    return invoke
