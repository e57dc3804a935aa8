"""Move the channels of a float file; the result is a new file of the same function, with the same tensors."""

from dataclasses import replace

import numpy as np

from tfptq.core.channel_moves import KernelAxes, Move, move_kernel
from tfptq.float_file.channel_steps import parameter_inputs, parameters_of
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.tflite.model import TFLiteModel


def move_channels(float_file: FloatFile, move: Move) -> FloatFile:
    """The file after a move of groups that ``channel_graph(float_file, ...)`` has."""
    model, moved = float_file.model.copy(), move.groups.layers
    kernels = tuple(
        _moved(model, kernel, move) if kernel.id.label in moved else kernel for kernel in float_file.kernels
    )
    for at, operator in enumerate(model.operators):
        name = parameters_of(at)
        for position in parameter_inputs(model, operator) if name in moved else ():
            _replace(model, operator, position, move.outputs(name, model.constant(operator.inputs[position])))
    model.remove_unused()  # buffers alone: every tensor has a reader still, so that indexes stay
    return replace(float_file, data=model.to_bytes(), model=model, kernels=kernels)


def _moved(model: TFLiteModel, kernel: Kernel, move: Move) -> Kernel:
    """A kernel and its biases after a move, in the model as well."""
    first = kernel.uses[0]
    depthwise = model.operator_name(model.operators[first.operator]) == "DEPTHWISE_CONV_2D"
    values = move_kernel(move, kernel.id.label, kernel.values, KernelAxes(0, 0 if depthwise else 1))
    for tensor in {use.tensor for use in kernel.uses}:
        model.tensors[tensor].buffer = model.add_buffer(first.view.from_view(values))
    return replace(kernel, values=values, uses=tuple(_moved_use(model, use, kernel, move) for use in kernel.uses))


def _moved_use(model: TFLiteModel, use: KernelUse, kernel: Kernel, move: Move) -> KernelUse:
    if use.bias is None:
        return use
    bias, operator = move.outputs(kernel.id.label, use.bias).astype(np.float32), model.operators[use.operator]
    _replace(model, operator, model.spec(operator).weights.bias, bias)
    return replace(use, bias=bias)


def _replace(model: TFLiteModel, operator, position: int, values: np.ndarray) -> None:
    """Give an operator another constant; what else reads the old one reads it as it was."""
    index, values = operator.inputs[position], values.astype(np.float32)
    others = any(index in other.inputs for other in model.operators if other is not operator)
    if others or operator.inputs.count(index) > 1 or index in model.subgraph.outputs:
        operator.inputs[position] = model.add_constant(model.name(index), values)
    else:
        model.tensors[index].buffer = model.add_buffer(values)
