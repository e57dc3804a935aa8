"""How far float32 itself lets the outputs of a float file move: ``tfptq.graph.float_noise`` for operators of a file.

A copy of the file takes one step of float32 off a random half of the channels of its inputs and of what each operator
returns, by a product with a constant.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.float_file.float_file import FloatFile
from tfptq.graph.float_equality import NOISE_DRAWS, TOLERANCE, limits_of_noise, relative_difference
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner

#: One step of float32, relative to the value.
_STEP = 2.0**-23


def file_tolerances(
    float_file: FloatFile, batch: Mapping[str, np.ndarray], differences: Sequence[tuple[int, float]]
) -> list[float]:
    """The differences that outputs may have: ``TOLERANCE``, or more where rounding moves one by more.

    Args:
        float_file: the file.
        batch: input name -> samples.
        differences: outputs of the file, and what was found.
    """
    if all(value <= TOLERANCE for _, value in differences):
        return [TOLERANCE] * len(differences)
    products = max((int(np.prod(kernel.shape[1:])) for kernel in float_file.kernels), default=1)
    noise = rounding_noise(float_file, batch, {index for index, _ in differences})
    return limits_of_noise([noise[index] for index, _ in differences], products, TOLERANCE)


def rounding_noise(
    float_file: FloatFile, batch: Mapping[str, np.ndarray], outputs: Collection[int]
) -> dict[int, float]:
    """Output of the file -> how far float32 rounding moves it, relative to its range."""
    named, size = float_file.by_tensor_name(batch), float_file.batch_size
    expected = TensorRunner(float_file.data, outputs).values_in_parts(named, size)
    noise = dict.fromkeys(outputs, 0.0)
    for seed in range(NOISE_DRAWS):
        model, moved = rounding_otherwise(float_file, seed)
        found = TensorRunner(model, [moved.get(index, index) for index in outputs]).values_in_parts(named, size)
        for index in outputs:
            # A value that rounding moves out of a domain says nothing: fmax leaves out NaN.
            difference = relative_difference(expected[index], found[moved.get(index, index)])
            noise[index] = float(np.fmax(noise[index], difference))
    return noise


def rounding_otherwise(float_file: FloatFile, seed: int) -> tuple[TFLiteModel, dict[int, int]]:
    """A copy of a file that rounds its values otherwise, and its tensor in the place of each of the file's."""
    model, random = float_file.model.copy(), np.random.default_rng(seed)
    moved: dict[int, int] = {}
    operators: list[schema.OperatorT] = []

    def round_otherwise(index: int) -> None:
        shape = model.shape(index)
        channels = shape[-1] if shape else 1
        factors = 1.0 - _STEP * random.integers(0, 2, channels if channels > 1 else ())
        constant = model.add_constant(f"{model.name(index)}_step", np.asarray(factors, np.float32))
        moved[index] = model.add_activation_like(index, f"{model.name(index)}_moved", schema.TensorType.FLOAT32)
        operators.append(model.new_operator("MUL", [index, constant], [moved[index]], options=schema.MulOptionsT()))

    for index in filter(model.is_float, model.subgraph.inputs):
        round_otherwise(index)
    for operator in model.operators:
        operator.inputs = [moved.get(index, index) for index in operator.inputs]
        operators.append(operator)
        for index in filter(model.is_float, operator.outputs):
            round_otherwise(index)
    model.operators[:] = operators
    return model, moved
