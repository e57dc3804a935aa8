"""Run a ``.tflite`` in LiteRT and look at the tensors inside.

The wanted tensors are made outputs of the file. So the default (XNNPACK) kernels can be used, which run a float
model many times faster than an interpreter that is told to preserve all tensors.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfptq.base.cpus import usable_cpus
from tfptq.base.quiet import quiet
from tfptq.tflite.model import NUMPY_TYPES, TFLiteModel


class TensorRunner:
    """Feeds batches to a model and shows chosen tensors.

    Args:
        model: ``.tflite`` file, or a model that is left as it is.
        tensors: indexes of the wanted tensors in the main subgraph.
    """

    def __init__(self, model: bytes | TFLiteModel, tensors: Iterable[int]):
        model = TFLiteModel(model) if isinstance(model, bytes) else model
        self.tensors = list(dict.fromkeys(tensors))
        self._inputs = {model.name(index): index for index in model.subgraph.inputs}
        written = set(model.producers())
        # An input that is also an output would be copied by the runtime; it is read back as an input instead.
        shown = model.with_outputs([index for index in self.tensors if index in written] or model.subgraph.outputs)
        with quiet():
            self._interpreter = Interpreter(model_content=shown.to_bytes(), num_threads=usable_cpus())
        self._grids = {index: _input_grid(model, index) for index in model.subgraph.inputs}
        self._shapes: dict[int, tuple[int, ...]] = {}

    @property
    def input_names(self) -> list[str]:
        """Names of the input tensors."""
        return list(self._inputs)

    def run(self, batch: Mapping[str, np.ndarray], observe: Callable[[int, np.ndarray], None]) -> None:
        """Run one batch.

        Args:
            batch: name of the input tensor -> real values with a batch axis; integer inputs get their codes.
            observe: called with ``(tensor index, values)`` for each wanted tensor. Values are views of the
                runtime's memory: copy what shall last, and keep no reference (the next run would refuse).
        """
        resized = False
        for name, values in batch.items():
            index = self._inputs[name]
            if self._shapes.get(index) != values.shape:
                self._interpreter.resize_tensor_input(index, values.shape)
                self._shapes[index] = values.shape
                resized = True
        if resized:
            with quiet():
                self._interpreter.allocate_tensors()
        for name, values in batch.items():
            self._interpreter.set_tensor(self._inputs[name], self._coded(self._inputs[name], values))
        self._interpreter.reset_all_variables()  # each batch starts anew, also in files that keep a state
        self._interpreter.invoke()
        for index in self.tensors:
            observe(index, self._interpreter.tensor(index)())

    def values(self, batch: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
        """Run one batch and return the wanted tensors; for the arguments see ``run``."""
        found: dict[int, np.ndarray] = {}
        self.run(batch, lambda index, values: found.update({index: values.copy()}))
        return found

    def values_in_parts(self, batch: Mapping[str, np.ndarray], size: int | None) -> dict[int, np.ndarray]:
        """As ``values``, ``size`` samples at a time where the file takes so many; the results lie behind each other."""
        count = len(next(iter(batch.values())))
        if size in (None, count):
            return self.values(batch)
        starts = range(0, count, size)
        parts = [self.values({name: values[at : at + size] for name, values in batch.items()}) for at in starts]
        return {index: np.concatenate([np.atleast_1d(part[index]) for part in parts]) for index in parts[0]}

    def _coded(self, index: int, values: np.ndarray) -> np.ndarray:
        grid = self._grids[index]
        if grid is None:
            return values
        scale, zero_point, dtype = grid
        limits = np.iinfo(dtype)
        with np.errstate(over="ignore"):  # masks go down to the least float32
            return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _input_grid(model: TFLiteModel, index: int) -> tuple[float, int, type] | None:
    """(scale, zero point, dtype) of a quantized input, or None."""
    tensor = model.tensors[index]
    if tensor.quantization is None or tensor.quantization.scale is None or model.is_float(index):
        return None
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]), NUMPY_TYPES[tensor.type]
