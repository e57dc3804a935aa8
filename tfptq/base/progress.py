"""Progress bars on a terminal, silence elsewhere, and the time each step took.

>>> with Progress().step("calibrate", total=256) as advance:
...     for batch in batches:
...         advance(len(batch))
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Progress:
    """Draws a bar and the time left for each step where ``stream`` (standard error) is a terminal.

    ``seconds`` is the wall time of each finished step, by name; a name used again adds up.
    """

    def __init__(self, enabled: bool = True, stream=None):
        self._stream = sys.stderr if stream is None else stream
        self.enabled = bool(enabled) and self._stream.isatty()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Run one step; yields ``advance(units=1)``. ``total`` is the units of work in it, None when unknown."""
        start = time.perf_counter()
        if self.enabled:
            with tqdm(desc=name, total=total, file=self._stream, dynamic_ncols=True) as bar:

                def advance(units: int = 1) -> None:
                    bar.update(units)

                yield advance
        else:
            yield _ignore
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _ignore(units: int = 1) -> None:
    del units
