"""Permute, scale or rotate the channel groups of a canonical model; the result is a new model of the same function.

A permutation ``p`` of a group (new channel ``j`` is old channel ``p[j]``) reorders the rows of its producers, the
columns of its consumers and the per-channel parameters in between: ``W'[j, i] = W[p[j], q[i]]`` with ``p`` the order of
the output side and ``q`` of the input side.

Positive scales ``s`` of a group multiply the rows and biases of its producers and divide the columns of its consumers:
``W'[o, i] = W[o, i] s[o] / t[i]``, ``b'[o] = b[o] s[o]`` with ``s`` of the output side and ``t`` of the input side.

Rotations mix the rows and biases of producers, and turn the mixture back in the columns of consumers:
``W' = R W Qᵀ``, ``b' = R b`` with the orthogonal ``R`` of the output side and ``Q`` of the input side.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import keras
import numpy as np

from tfptq.graph.channel_groups import ChannelGroups, ChannelRun, runs_with_channels
from tfptq.graph.flat_graph import Unit
from tfptq.graph.fold_batch_norm import DEPTHWISE, TRANSPOSED
from tfptq.graph.rebuild import build_model, read_graph


def apply_permutations(
    model: keras.Model, groups: ChannelGroups, permutations: Mapping[int, np.ndarray]
) -> keras.Model:
    """Permute groups of ``channel_groups(model)``, by {group index: permutation [size], new channel -> old channel}.

    Raises:
        ValueError: an unknown group, or something that is no permutation of its channels.
    """
    for index, permutation in permutations.items():
        size = _group_size(groups, index)
        if not np.array_equal(np.sort(permutation), np.arange(size)):
            raise ValueError(f"permutation of channel group {index} does not hold each of 0..{size - 1} once")

    def permute(unit: Unit) -> Unit:
        outputs = groups.output_order(unit.name, permutations)
        if "kernel" not in dict(unit.weights):
            return _permute_parameters(unit, outputs)
        inputs = groups.input_order(unit.name, permutations) if groups.layers[unit.name].inputs else None
        return _permute_kernel(unit, outputs, inputs)

    return _change_units(model, groups, permute)


def scale_channels(model: keras.Model, groups: ChannelGroups, scales: Mapping[int, np.ndarray]) -> keras.Model:
    """Scale groups that follow ``Change.SCALE``, by {group index: positive factors [size]}.

    The function stays up to float32 rounding, exactly for powers of two.

    Raises:
        ValueError: an unknown group, a wrong number of factors, or a factor that is not finite and positive.
    """
    for index, factors in scales.items():
        size = _group_size(groups, index)
        if np.shape(factors) != (size,) or not np.all(np.isfinite(factors)) or np.any(np.asarray(factors) <= 0):
            raise ValueError(f"scales of channel group {index} are not {size} finite positive numbers")

    def scale(unit: Unit) -> Unit:
        outputs, inputs = groups.output_scale(unit.name, scales), groups.input_scale(unit.name, scales)
        return _scale_weights(unit, outputs, inputs)

    return _change_units(model, groups, scale)


def rotate_channels(model: keras.Model, groups: ChannelGroups, rotations: Mapping[int, np.ndarray]) -> keras.Model:
    """Rotate groups that follow ``Change.ROTATION``, up to float32 rounding.

    ``rotations`` are {group index: orthogonal float64 [size, size]}: new channels = matrix @ old channels.

    Raises:
        ValueError: an unknown group, or a matrix that is not orthogonal or has another size.
    """
    for index, rotation in rotations.items():
        size = _group_size(groups, index)
        if np.shape(rotation) != (size, size) or not np.allclose(rotation @ rotation.T, np.eye(size), atol=1e-6):
            raise ValueError(f"the rotation of channel group {index} is no orthogonal matrix of {size} x {size}")

    def rotate(unit: Unit) -> Unit:
        channels = groups.layers[unit.name]
        kernel = unit.kernel.astype(np.float64)  # [*taps, I, O]
        if unit.kind in TRANSPOSED:
            kernel = kernel.swapaxes(-1, -2)
        kernel = _mix(kernel, channels.outputs, rotations)
        kernel = _mix(kernel.swapaxes(-1, -2), channels.inputs, rotations)  # [*taps, O, I]
        if unit.kind not in TRANSPOSED:
            kernel = kernel.swapaxes(-1, -2)
        return _with_weights(unit, kernel, lambda bias: _mix(bias, channels.outputs, rotations))

    return _change_units(model, groups, rotate)


def _mix(values: np.ndarray, layout: tuple[ChannelRun, ...], rotations: Mapping[int, np.ndarray]) -> np.ndarray:
    """Rotate the channels of some groups, which lie along the last axis."""
    mixed = np.array(values, np.float64)
    for run, channels in runs_with_channels(layout):
        if run.group is not None and run.group in rotations:
            mixed[..., channels] = mixed[..., channels] @ rotations[run.group].T
    return mixed


def _group_size(groups: ChannelGroups, index: int) -> int:
    if index not in range(len(groups.groups)):
        raise ValueError(f"there is no channel group {index}; the model has {len(groups.groups)}")
    return groups.groups[index].size


def _change_units(model: keras.Model, groups: ChannelGroups, change: Callable[[Unit], Unit]) -> keras.Model:
    graph = read_graph(model)
    return build_model(graph.replace_units({unit: change(unit) for unit in graph.units if unit.name in groups.layers}))


def _permute_parameters(unit: Unit, order: np.ndarray) -> Unit:
    """Reorder the last axis of every weight that has all channels there (PReLU may share one number)."""
    weights = tuple(
        (name, array[..., order] if array.shape[-1:] == order.shape else array) for name, array in unit.weights
    )
    return replace(unit, weights=weights)


def _permute_kernel(unit: Unit, outputs: np.ndarray, inputs: np.ndarray | None) -> Unit:
    kernel = unit.kernel
    if unit.kind in DEPTHWISE:
        kernel = kernel[..., outputs, :]  # [*taps, C, 1]
    elif unit.kind in TRANSPOSED:
        kernel = kernel[..., outputs, :][..., inputs]  # [*taps, O, I]
    else:
        kernel = kernel[..., inputs, :][..., outputs]  # [*taps, I, O]
    return _with_weights(unit, kernel, lambda bias: bias[outputs])


def _scale_weights(unit: Unit, outputs: np.ndarray, inputs: np.ndarray) -> Unit:
    if unit.kind in DEPTHWISE:
        factors = (outputs / inputs)[:, None]  # [C, 1]
    elif unit.kind in TRANSPOSED:
        factors = outputs[:, None] / inputs  # [O, I]
    else:
        factors = outputs / inputs[:, None]  # [I, O]
    return _with_weights(unit, unit.kernel * factors, lambda bias: bias * outputs)


def _with_weights(unit: Unit, kernel: np.ndarray, change_bias: Callable[[np.ndarray], np.ndarray]) -> Unit:
    weights = [("kernel", kernel.astype(np.float32))]
    weights += [("bias", change_bias(array).astype(np.float32)) for name, array in unit.weights if name == "bias"]
    return replace(unit, weights=tuple(weights))
