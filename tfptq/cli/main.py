"""Post-training quantization of models into .tflite files: one command for all programs.

tfptq convert net.keras --calibration_data=samples.npy --output=net.tflite
tfptq inspect net.tflite
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from tfptq.version import __version__

#: Subcommand -> what it does. The program is the module of that name in ``tfptq.cli``, with ``_`` for ``-``.
PROGRAMS = {
    "convert": "quantize a Keras model, SavedModel or float .tflite file",
    "evaluate": "accuracy, agreement, signal to noise and latency of a .tflite file on labelled samples",
    "inspect": "show what is in a quantized .tflite file",
    "verify": "check a quantized .tflite file against its block metadata",
    "search": "find the smallest or fastest file that loses no more than is allowed",
    "sweep": "accuracy, scales and bytes over a grid of granularities",
    "to-c": "turn a .tflite file into C++ sources for TFLite Micro",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the first argument names; returns its exit code."""
    _, *arguments = sys.argv if argv is None else argv
    name = arguments[0] if arguments else ""
    if name in PROGRAMS:
        return import_module(f"tfptq.cli.{name.replace('-', '_')}").main([f"tfptq {name}", *arguments[1:]])
    if name in ("--help", "-h", "help"):
        print(_usage())
    elif name == "--version":
        print(f"tfptq {__version__}")
    else:
        print(f"tfptq: {_complaint(name)} (see tfptq --help)", file=sys.stderr)
        return 2
    return 0


def _usage() -> str:
    programs = "\n".join(f"  {name:<8} {what}" for name, what in PROGRAMS.items())
    return f"{__doc__.strip()}\n\nsubcommands:\n{programs}\n\ntfptq SUBCOMMAND --help lists its flags; --version."


def _complaint(name: str) -> str:
    if not name:
        return f"name a subcommand: {', '.join(PROGRAMS)}"
    near = difflib.get_close_matches(name, PROGRAMS, n=1)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(PROGRAMS)}"
    return f"unknown subcommand {name!r}; {known}"
