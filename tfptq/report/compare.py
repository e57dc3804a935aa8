"""Compare the quantized file with the float one, on a few samples: its outputs, and those of its kernels."""

import math
from collections.abc import Mapping

import numpy as np

from tfptq.tflite.emit import IntegerPlan
from tfptq.tflite.ends import read_ends
from tfptq.tflite.float_file import Skeleton
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.runtime import TensorRunner

#: Real values of the float file, and of the quantized one.
Pair = tuple[np.ndarray, np.ndarray]


def compare_with_float(
    skeleton: Skeleton, tflite: bytes, plan: IntegerPlan, samples: Mapping[str, np.ndarray]
) -> tuple[dict[int, float], dict[str, Pair]]:
    """Compare the quantized file with the float one.

    Args:
        skeleton: float model.
        tflite: the quantized file; its tensors have the names of the skeleton's.
        plan: gives the grids.
        samples: Keras input name -> array.

    Returns:
        Skeleton tensor index -> signal-to-noise ratio in dB, for the output of every kernel, and name in the signature
        -> real values, for the outputs of the model.
    """
    quantized = TFLiteModel(tflite)
    index_of = {quantized.name(index): index for index in range(len(quantized.tensors))}
    pairs = {}
    for binding in skeleton.bindings:
        name = skeleton.model.name(binding.output)
        inner = index_of.get(f"{name}_int{plan.bits}", index_of.get(name))
        if inner is not None and (binding.output in plan.grids or quantized.is_float(inner)):
            pairs[inner] = binding.output
    names = [row.name for row in read_ends(tflite, read_model(tflite)) if row.end == "output"]
    ends = {
        name: (inner, outer)
        for name, inner, outer in zip(names, quantized.subgraph.outputs, skeleton.model.subgraph.outputs, strict=True)
        if skeleton.model.is_float(outer)
    }
    found = _run(tflite, [*pairs, *(inner for inner, _ in ends.values())], skeleton, samples)
    expected = _run(skeleton.data, [*pairs.values(), *(outer for _, outer in ends.values())], skeleton, samples)
    ratios = {
        outer: signal_to_noise(expected[outer], _real(quantized, inner, found[inner])) for inner, outer in pairs.items()
    }
    outputs = {name: (expected[outer], _real(quantized, inner, found[inner])) for name, (inner, outer) in ends.items()}
    return ratios, outputs


def _real(model: TFLiteModel, index: int, values: np.ndarray) -> np.ndarray:
    """Real values of a tensor that may hold codes."""
    if values.dtype == np.float32:
        return values
    grid = model.tensors[index].quantization
    return (values.astype(np.float64) - int(grid.zeroPoint[0])) * float(grid.scale[0])


def _run(tflite: bytes, tensors, skeleton: Skeleton, samples: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    runner = TensorRunner(tflite, tensors)
    names = dict(
        zip((skeleton.model.name(index) for index in skeleton.model.subgraph.inputs), runner.input_names, strict=True)
    )
    return runner.values({names[name]: values for name, values in skeleton.by_tensor_name(samples).items()})


def signal_to_noise(expected: np.ndarray, found: np.ndarray) -> float:
    """``10 log10(sum f^2 / sum (f - q)^2)`` in dB: infinite without noise, -infinite where a value is not finite."""
    noise = float(np.square(expected - found, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    if noise == 0.0:
        return math.inf
    if not (math.isfinite(noise) and math.isfinite(signal) and signal):
        return -math.inf
    return 10.0 * math.log10(signal / noise)
