"""Programs of others that benchmarks call: where they are, and what they say when they fail."""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class ToolError(RuntimeError):
    """A program is missing, or failed; the message is its own last words."""


@dataclass(frozen=True)
class Tool:
    """A program, looked for in an environment variable, beside this Python, and on ``PATH``.

    Attributes:
        name: of the program, or its path; empty where only the variable can name it.
        variable: environment variable with its path.
        script: first argument of each call, for programs that are a Python with other packages.
    """

    name: str
    variable: str
    script: Path | None = None

    def path(self) -> str | None:
        """Where it is; None if it is missing."""
        beside = Path(sys.executable).parent / self.name
        return os.environ.get(self.variable) or (str(beside) if beside.is_file() else shutil.which(self.name))

    def run(self, *arguments: str | Path, seconds: float = 600) -> str:
        """What it prints to standard output.

        Raises:
            ToolError: it is missing, ends with an error, or takes longer than ``seconds``.
        """
        path = self.path()
        if path is None:
            raise ToolError(f"not installed here: {self.variable} names it")
        command = [path, *([] if self.script is None else [str(self.script)]), *map(str, arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"it was not done after {seconds:g} s") from error
        if done.returncode < 0:
            raise ToolError(f"it crashed: {signal.Signals(-done.returncode).name}")
        if done.returncode:
            raise ToolError(last_words(done.stderr or done.stdout))
        return done.stdout


def last_words(text: str) -> str:
    """What an output says of why a program failed: from the last line that names an error on, or the last line."""
    lines = [" ".join(re.sub(r"\x1b\[[\d;]*m", "", line).split()) for line in text.splitlines()]
    lines = [line for line in lines if line] or ["it said nothing"]
    errors = [at for at, line in enumerate(lines) if re.search(r"error|exception|not supported", line, re.IGNORECASE)]
    return " ".join(lines[errors[-1] if errors else -1 :])[:300]
