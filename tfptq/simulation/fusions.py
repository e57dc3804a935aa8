"""Constants that the converter fused into kernels, which the layers of the Keras simulation do not hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.graph.float_equality import model_outputs, relative_difference
from tfptq.layers import QuantizedVariable, wrappers
from tfptq.simulation.layer_tensors import output_tensor, uses_of
from tfptq.tflite.runtime import TensorRunner

#: Relative difference below which a tensor of the file holds what a layer reads or writes. Float32 rounding makes much
#: less of it, and a constant that the converter fused much more, unless it hardly matters.
SAME_VALUES = 1e-2
#: The same for biases, relative to the largest.
SAME_BIAS = 1e-3


@dataclass(frozen=True)
class Fusion:
    """A use of a kernel into which the converter put a constant factor or summand beside the layer.

    Attributes:
        same_input: whether the operator reads what the layer reads; if not, the constant came before the layer.
        same_output: whether it writes what the layer writes.
        offset: the number that was added before the layer.
    """

    same_input: bool
    same_output: bool
    offset: float = 0.0


def find_fusions(
    model: keras.Model,
    simulation: keras.Model,
    float_file: FloatFile,
    kernels: Mapping[KernelId, Kernel],
    samples: Mapping[str, np.ndarray],
) -> dict[int, Fusion]:
    """Find the constants that the converter fused into kernels, by their biases and by what is computed.

    Args:
        model: canonical float Keras model.
        simulation: the same with wrappers, whose biases are still those of the float model.
        float_file: float model in the file.
        kernels: the kernels that get codes.
        samples: Keras input name -> array.

    Returns:
        Position of an operator -> what was fused into it.
    """
    found = {}
    for wrapper in wrappers(simulation):
        for slot in wrapper.quantized_weights:
            for use in uses_of(kernels, wrapper, slot):
                if _holds_more_than_the_layer(slot, use):
                    layer = model.get_layer(wrapper.layer.name)
                    tensors = use.input, output_tensor(float_file, wrapper, use)
                    found[use.operator] = _fusion(model, layer, float_file, tensors, samples)
    return found


def _holds_more_than_the_layer(slot: QuantizedVariable, use: KernelUse) -> bool:
    """Whether a use of a kernel computes something else than the layer does."""
    if use.row_factors is not None:
        return True
    own = 0.0 if slot.bias is None else keras.ops.convert_to_numpy(slot.bias).reshape(-1)
    held = np.zeros_like(own) if use.bias is None else use.bias
    return not np.allclose(held, own, rtol=SAME_BIAS, atol=SAME_BIAS * (np.abs(held).max(initial=0.0) or 1.0))


def _fusion(
    model: keras.Model,
    layer: keras.Layer,
    float_file: FloatFile,
    tensors: tuple[int, int | None],
    samples: Mapping[str, np.ndarray],
) -> Fusion:
    """What is beside a layer, by whether tensors of the file hold its input and its output."""
    if len(layer._inbound_nodes) != 1:
        return Fusion(False, False)
    if isinstance(layer.input, list | dict):
        return Fusion(True, False)  # an attention layer; what the converter fuses into its kernels is its own
    expected = model_outputs(keras.Model(model.inputs, [layer.input, layer.output]), samples)
    wanted = {index for index in tensors if index is not None}
    runner = TensorRunner(float_file.data, wanted)
    found = runner.values_in_parts(float_file.by_tensor_name(samples), float_file.batch_size)
    same_input, same_output = (
        index is not None
        and found[index].size == values.size
        and relative_difference(values.reshape(-1), found[index].reshape(-1)) < SAME_VALUES
        for values, index in zip(expected, tensors, strict=True)
    )
    known = not same_input and tensors[0] in found and found[tensors[0]].size == expected[0].size
    return Fusion(same_input, same_output, _offset(expected[0], found[tensors[0]]) if known else 0.0)


def _offset(values: np.ndarray, held: np.ndarray) -> float:
    """``b`` of ``values = a * held + b`` where they are so related, else 0: the converter fuses no more than that."""
    values, held = (array.reshape(-1).astype(np.float64) for array in (values, held))
    if np.ptp(held) == 0:
        return 0.0
    factor, offset = np.polyfit(held, values, 1)
    return float(offset) if relative_difference(values, factor * held + offset) < SAME_VALUES else 0.0
