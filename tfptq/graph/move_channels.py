"""Move the channels of a canonical Keras model; the result is a new model of the same function."""

from dataclasses import replace

import keras
import numpy as np

from tfptq.core.channel_moves import KernelAxes, Move, move_kernel
from tfptq.graph.flat_graph import Unit
from tfptq.graph.fold_batch_norm import DEPTHWISE, TRANSPOSED
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model


def move_channels(model: keras.Model, move: Move) -> keras.Model:
    """The model after a move of groups of ``channel_groups(model)``."""
    graph, moved = read_graph(model), move.groups.layers
    return build_model(graph.replace_units({unit: _moved(unit, move) for unit in graph.units if unit.name in moved}))


def _moved(unit: Unit, move: Move) -> Unit:
    name = unit.name
    if "kernel" not in dict(unit.weights):
        return replace(unit, weights=tuple((key, _moved_parameter(array, move, name)) for key, array in unit.weights))
    weights = [("kernel", move_kernel(move, name, unit.kernel, _axes(unit)))]
    biases = [(key, array) for key, array in unit.weights if key == "bias"]
    weights += [(key, move.outputs(name, array).astype(np.float32)) for key, array in biases]
    return replace(unit, weights=tuple(weights))


def _axes(unit: Unit) -> KernelAxes:
    if unit.kind in DEPTHWISE:
        return KernelAxes(outputs=-2, inputs=-2)  # [*taps, C, 1]
    return KernelAxes(-2, -1) if unit.kind in TRANSPOSED else KernelAxes(-1, -2)  # [*taps, O, I], [*taps, I, O]


def _moved_parameter(array: np.ndarray, move: Move, name: str) -> np.ndarray:
    """A parameter with all channels along its last axis, after a move; others stay (PReLU may share one number)."""
    channels = sum(run.size for run in move.groups.layers[name].outputs)
    return move.outputs(name, array).astype(array.dtype) if array.shape[-1:] == (channels,) else array
