"""A progress bar on a terminal or in a notebook, silence elsewhere, and the time each step took.

>>> with Progress(plan={"calibrate": "measuring activations"}) as steps:
...     with steps.step("calibrate", total=256) as advance:
...         for batch in batches:
...             advance(len(batch))
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from tfptq.base.quiet import STANDARD_ERROR, real_standard_error

with warnings.catch_warnings():  # a notebook without ipywidgets has a bar of text
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

#: Ends of the line of a step: with the number of units of work in it, without that, and before the first unit.
_KNOWN, _UNKNOWN, _STARTED = (
    "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
    "{desc}, {n_fmt} done [{elapsed}]",
    "{desc} ...",
)


class Progress:
    """One bar for all steps of a job; close it, by ``with``, to take it off the screen.

    Args:
        enabled: whether to show it at all.
        stream: where it goes, standard error by default. Nothing is written to what is neither a terminal nor the
            output of a notebook's cell.
        plan: step -> what the bar calls it, for the steps of the job in their order. Some may be left out.

    Attributes:
        seconds: wall time of each finished step, by name; a name used again adds up.
    """

    def __init__(
        self, enabled: bool = True, stream: TextIO | None = None, plan: Mapping[str, str] | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._plan = plan or {}
        self._bar: tqdm | None = None
        self._real: TextIO | None = None
        self.enabled = bool(enabled) and (_is_terminal(self._stream) or in_notebook())
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Run one step; yields ``advance(units=1)``. ``total`` is the units of work in it, None when unknown."""
        start = time.perf_counter()
        if self.enabled:
            self._show(name, total)
        try:
            yield self._advance
        finally:
            if not self._plan:
                self.close()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._real is not None:
            self._real.close()
            self._real = None

    def _show(self, name: str, total: int | None) -> None:
        label, bar_format = self._label(name), _KNOWN if total else _STARTED
        if self._bar is None:
            self._real = real_standard_error() if _is_standard_error(self._stream) else None
            stream, style = self._real or self._stream, {"miniters": 1, "leave": False, "dynamic_ncols": True}
            self._bar = tqdm(desc=label, total=total, file=stream, bar_format=bar_format, **style)
        else:
            self._bar.set_description_str(label, refresh=False)
            self._bar.bar_format = bar_format
            self._bar.total = total  # reset leaves the one before in place of None
            self._bar.reset(total)  # and draws

    def _label(self, name: str) -> str:
        if not self._plan:
            return name
        return f"step {list(self._plan).index(name) + 1} of {len(self._plan)}: {self._plan[name]}"

    def _advance(self, units: int = 1) -> None:
        if self._bar is not None:
            if not self._bar.total:
                self._bar.bar_format = _UNKNOWN
            self._bar.update(units)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _is_standard_error(stream: TextIO) -> bool:
    """Whether a stream writes to the file descriptor that ``quiet`` turns away."""
    try:
        return stream.fileno() == STANDARD_ERROR
    except (OSError, ValueError):  # not a file: that of a notebook, or of a test
        return False
