"""The integer rule of UNIDIRECTIONAL_SEQUENCE_LSTM beside its kernels: states, and what stands between the gates.

As LiteRT's 8-bit quantization specification has it: the hidden state is int8 on the grid of the result, and the cell
state int16 with a power of two as its step. The kernels read the grid of the hidden state from the last of five
*intermediates*, tensors without values; the others, the inputs of the gates' functions, are fixed.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.config import PerTensor, QuantizationConfig
from tfptq.core.affine import ActivationGrid
from tfptq.tflite.model import TFLiteModel, quantization_parameters

#: How far beyond what calibration saw a cell state may go: sequences may be longer than those of the samples.
HEADROOM = 4.0
#: Steps of cell states that kernels take: their logarithms of base 2. Finer ones than the least bring nothing, since
#: it is the step of what the gates' functions read.
_STEPS = -12, -9
_LARGEST_CODE = 32767
_GATE_INPUT = ActivationGrid(2.0**-12, 0, 16)
_TYPES = {8: schema.TensorType.INT8, 16: schema.TensorType.INT16}


def cell_grid(largest: float) -> ActivationGrid:
    """Grid of a cell state whose largest magnitude is ``largest``; it saturates where kernels have no step for it."""
    wanted = math.ceil(math.log2(max(HEADROOM * largest, 2.0**-20) / _LARGEST_CODE))
    return ActivationGrid(2.0 ** min(max(wanted, _STEPS[0]), _STEPS[1]), 0, 16)


def config_of_recurrent(config: QuantizationConfig) -> QuantizationConfig:
    """The config of an LSTM's kernels: 8 bits and one scale for each, as all that stock kernels read."""
    if config.keeps_weights:
        return config
    return config.replace(weight_bits=8, mixed_precision=None, granularity=PerTensor(), scaler="float")


def place_states(
    model: TFLiteModel,
    operator: schema.OperatorT,
    grids: Mapping[int, ActivationGrid],
    before: Sequence[schema.OperatorT],
) -> None:
    """Let the states of an LSTM on integers be integers, in place.

    Args:
        model: model to edit.
        operator: the LSTM.
        grids: tensor index -> grid, of the states among others.
        before: the operators in front of it; those that write its states write integers then.
    """
    states = [operator.inputs[at] for at in model.spec(operator).states]
    for index in states:
        grid = grids[index]
        tensor = model.tensors[index]
        tensor.type, tensor.quantization = _TYPES[grid.bits], _parameters(grid)
        for writer in before:
            if index in writer.outputs:
                start = model.constant(writer.inputs[0])
                name = f"{model.name(index)}/start"
                writer.inputs = [model.add_constant(name, grid.quantize(start), _parameters(grid)), *writer.inputs[1:]]
                model.raise_version(writer, model.spec(writer).version(grid.bits))
    name = model.name(operator.outputs[0])
    inner = [_GATE_INPUT] * 4 + [grids[states[0]]]
    operator.intermediates = [_intermediate(model, f"{name}/gate", grid) for grid in inner]


def _parameters(grid: ActivationGrid):
    return quantization_parameters([grid.scale], [grid.zero_point])


def _intermediate(model: TFLiteModel, name: str, grid: ActivationGrid) -> int:
    """A tensor without values, as TFLite Micro wants it."""
    tensor = schema.TensorT(name=model.unique_name(name), type=_TYPES[grid.bits], buffer=0, hasRank=True)
    tensor.shape, tensor.quantization = np.zeros(1, np.int32), _parameters(grid)
    model.tensors.append(tensor)
    return len(model.tensors) - 1
