"""Run ``.tflite`` files in TFLite Micro, as the package ``tflite-micro`` has it: reference kernels, on this machine."""

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfptq.base.quiet import overhear
from tfptq.tflite.metadata import load_bytes
from tfptq.tflite.micro_source import Golden
from tfptq.tflite.model_reader import read_model

#: What the arena may take here.
_MOST_BYTES = 1 << 28
_ALIGNMENT = 16
#: Bytes that the planning of the arena takes for a time, tried with small files.
_PLAN_OF_A_TENSOR, _PLAN = 64, 128


class MicroInterpreter:
    """A file in TFLite Micro.

    Args:
        file: the ``.tflite`` file, as bytes or path.

    Raises:
        ModuleNotFoundError: the package ``tflite-micro`` is not installed.
        ValueError: TFLite Micro refuses the file; its own words are in the message.
    """

    def __init__(self, file: bytes | str | os.PathLike):
        runtime, content = _runtime(), load_bytes(file)
        graphs = read_model(content).subgraphs
        self._outputs, self._tensors = len(graphs[0].outputs), sum(len(graph.tensors) for graph in graphs)
        with overhear() as written:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=_MOST_BYTES)
            except RuntimeError as error:
                raise ValueError(f"TFLite Micro cannot run the file: {error}: {_one_line(written())}") from error

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for one value of each input, in the types that the file has."""
        for number, values in enumerate(inputs):
            self._interpreter.set_input(values, number)
        self._interpreter.invoke()
        return [self._interpreter.get_output(number) for number in range(self._outputs)]

    def golden(self, inputs: Sequence[np.ndarray]) -> Golden:
        """Outputs for samples ``[N, ...]`` of each input, run one by one."""
        runs = [self.run([values[at] for values in inputs]) for at in range(len(inputs[0]))]
        return Golden(tuple(inputs), tuple(np.stack(values) for values in zip(*runs, strict=True)))

    def arena_bytes(self) -> int:
        """An arena that is enough for the file, and hardly more.

        Kernels are the reference ones and pointers have the size that they have here: on 32-bit devices it is less.

        Raises:
            RuntimeError: the package does not tell as it used to.
        """
        with overhear() as written:
            self._interpreter.print_allocations()
            text = _one_line(written())
        found = dict(re.findall(r"Arena allocation (total|tail) (\d+) bytes", text))
        if found.keys() != {"total", "tail"}:
            raise RuntimeError(
                f"this version of the package tflite-micro does not print what the arena takes: {text!r}"
            )
        # What lasts is in the tail; the head holds activations, and before there are any, the plan of where they lie.
        planning = int(found["tail"]) + self._tensors * _PLAN_OF_A_TENSOR + _PLAN
        return max(int(found["total"]), -(-planning // _ALIGNMENT) * _ALIGNMENT)


def _runtime() -> Any:
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the package tflite-micro is not installed: pip install tflite-micro") from error
    return runtime


def _one_line(text: str) -> str:
    return " ".join(text.split())
