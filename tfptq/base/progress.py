"""Progress bars on a terminal, silence elsewhere, and the time each step took.

One ``Progress`` follows one job. Each step of the job is a ``with`` block, whose target is called as work is done::

    progress = Progress()
    with progress.step("calibrate", total=256) as advance:
        for batch in batches:
            ...
            advance(len(batch))
    progress.seconds  # {"calibrate": 1.9}
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Progress:
    """Shows named steps with a bar and the time left, if anybody can see it.

    Attributes:
        enabled: whether bars are drawn.
        seconds: wall time of each finished step, by name; a name used again adds up.
    """

    def __init__(self, enabled: bool = True, stream=None):
        """Follow a new job.

        Args:
            enabled: False never draws. True draws when ``stream`` is a terminal.
            stream: text stream to draw on; standard error unless given.
        """
        self._stream = sys.stderr if stream is None else stream
        self.enabled = bool(enabled) and self._stream.isatty()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Run one step of the job inside a ``with`` block.

        Args:
            name: what the bar is headed with and the key in ``seconds``.
            total: units of work in the step, for the estimate of the time left; None when unknown.

        Yields:
            ``advance(units=1)``, to be called when units of work are done.
        """
        start = time.perf_counter()
        if self.enabled:
            with tqdm(desc=name, total=total, file=self._stream, dynamic_ncols=True) as bar:
                yield bar.update
        else:
            yield _draw_nothing
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _draw_nothing(units: int = 1) -> None:
    del units
