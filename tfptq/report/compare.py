"""Compare the quantized file with the float one, on a few samples: its outputs, and those of its kernels."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tfptq.core.decibels import decibels, powers
from tfptq.float_file.float_file import FloatFile
from tfptq.lowering.clipped_ranges import limits_of_readers
from tfptq.lowering.plan import IntegerPlan
from tfptq.tflite.interface import read_interface
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.runtime import TensorRunner

#: Samples of one run, where the file takes any number.
SAMPLES_AT_ONCE = 4
#: Real values of the float file, and of the quantized one.
Pair = tuple[np.ndarray, np.ndarray]


def compare_with_float(
    float_file: FloatFile, tflite: bytes, plan: IntegerPlan, samples: Mapping[str, np.ndarray]
) -> tuple[dict[int, float], dict[str, Pair], dict[str, int]]:
    """Compare the quantized file with the float one on samples, Keras input name -> array.

    Returns:
        Tensor index in the float file -> signal-to-noise ratio in dB, for the output of every kernel; and for the
        outputs of the model, name in the signature -> real values, and name -> tensor index in the float file.
    """
    quantized = TFLiteModel(tflite)
    index_of = {quantized.name(index): index for index in range(len(quantized.tensors))}
    pairs = {}
    for use in float_file.uses:
        name = float_file.model.name(use.output)
        inner = index_of.get(f"{name}_int{plan.bits}", index_of.get(name))
        if inner is not None and (use.output in plan.grids or quantized.is_float(inner)):
            pairs[inner] = use.output
    names = [row.name for row in read_interface(read_model(tflite)) if row.end == "output"]
    model_outputs = {
        name: (inner, outer)
        for name, inner, outer in zip(names, quantized.subgraph.outputs, float_file.model.subgraph.outputs, strict=True)
        if float_file.model.is_float(outer)
    }
    files = (
        _File(tflite, [*pairs, *(inner for inner, _ in model_outputs.values())], float_file),
        _File(float_file.data, [*pairs.values(), *(outer for _, outer in model_outputs.values())], float_file),
    )
    totals = {outer: np.zeros(2) for outer in pairs.values()}  # signal and noise
    limits = limits_of_readers(float_file.model)  # what a clip cuts off behind a kernel is no noise of the kernel
    parts: dict[str, list[Pair]] = {name: [] for name in model_outputs}
    for part in _parts(samples, float_file.batch_size or SAMPLES_AT_ONCE):
        found, expected = (file.run(part) for file in files)
        for inner, outer in pairs.items():
            seen = [
                np.clip(it, *limits.get(outer, (None, None)))
                for it in (expected[outer], _real(quantized, inner, found[inner]))
            ]
            totals[outer] += powers(*seen)
        for name, (inner, outer) in model_outputs.items():
            parts[name].append((expected[outer], _real(quantized, inner, found[inner])))
    outputs = {
        name: (np.concatenate([expected for expected, _ in runs]), np.concatenate([real for _, real in runs]))
        for name, runs in parts.items()
    }
    snrs = {outer: decibels(*total) for outer, total in totals.items()}
    return snrs, outputs, {name: outer for name, (_, outer) in model_outputs.items()}


def _parts(samples: Mapping[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
    """The samples, ``size`` at a time: the runtime keeps all tensors of a run."""
    for start in range(0, len(next(iter(samples.values()))), size):
        yield {name: values[start : start + size] for name, values in samples.items()}


def _real(model: TFLiteModel, index: int, values: np.ndarray) -> np.ndarray:
    """Real values of a tensor that may hold codes."""
    if values.dtype == np.float32:
        return values
    grid = model.tensors[index].quantization
    return (values.astype(np.float64) - int(grid.zeroPoint[0])) * float(grid.scale[0])


class _File:
    """Runs one of the files, and gives some of its tensors."""

    def __init__(self, tflite: bytes, tensors: Iterable[int], float_file: FloatFile):
        self._runner, self._float_file = TensorRunner(tflite, tensors), float_file
        inputs = map(float_file.model.name, float_file.model.subgraph.inputs)
        self._names = dict(zip(inputs, self._runner.input_names, strict=True))

    def run(self, samples: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
        """Tensor index -> values, with at least one axis; ``samples`` are by Keras input name."""
        by_name = self._float_file.by_tensor_name(samples)
        values = self._runner.values({self._names[name]: array for name, array in by_name.items()})
        return {index: np.atleast_1d(array) for index, array in values.items()}
