"""Warnings that point to the line of the caller's own code."""

import os
import sys
import warnings
from pathlib import Path

#: How the paths of files in this package start.
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost call that comes from outside this package.

    From Python 3.12 on, ``warnings.warn`` has ``skip_file_prefixes`` for this.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
