"""Permute, scale or rotate groups of channels in the arrays that hold them; the function of the network stays.

A permutation ``p`` of a group (new channel ``j`` is old channel ``p[j]``) reorders the rows of its producers, the
columns of its consumers and the per-channel parameters in between: ``W'[j, i] = W[p[j], q[i]]`` with ``p`` the order of
the output side and ``q`` of the input side.

Positive scales ``s`` of a group multiply the rows and biases of its producers and divide the columns of its consumers:
``W'[o, i] = W[o, i] s[o] / t[i]``, ``b'[o] = b[o] s[o]`` with ``s`` of the output side and ``t`` of the input side.

Rotations mix the rows and biases of producers, and turn the mixture back in the columns of consumers:
``W' = R W Qᵀ``, ``b' = R b`` with the orthogonal ``R`` of the output side and ``Q`` of the input side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tfptq.core.channel_groups import ChannelGroups, ChannelRun, runs_with_channels


class Move(Protocol):
    """What is done to groups of channels, in the arrays of any layer."""

    @property
    def groups(self) -> ChannelGroups:
        """All groups of the network."""

    def outputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """An array with the output channels of a layer along an axis, after the move; float64, or as it was."""

    def inputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """The same with the input channels of a layer."""


@dataclass(frozen=True, eq=False)
class Permutations:
    """Permutations of groups that follow one, by their index: ``[size]``, new channel -> old channel.

    Raises:
        ValueError: an unknown group, or something that is no permutation of its channels.
    """

    groups: ChannelGroups
    orders: Mapping[int, np.ndarray]

    def __post_init__(self):
        for index, order in self.orders.items():
            size = _group_size(self.groups, index)
            if not np.array_equal(np.sort(order), np.arange(size)):
                raise ValueError(f"permutation of channel group {index} does not hold each of 0..{size - 1} once")

    def outputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """``values`` in the new order of the output channels."""
        return np.take(values, self.groups.output_order(layer, self.orders), axis)

    def inputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """``values`` in the new order of the input channels."""
        return np.take(values, self.groups.input_order(layer, self.orders), axis)


@dataclass(frozen=True, eq=False)
class Scales:
    """Positive factors ``[size]`` of groups that follow a scale, by their index.

    The function stays up to float32 rounding, exactly for powers of two.

    Raises:
        ValueError: an unknown group, a wrong number of factors, or a factor that is not finite and positive.
    """

    groups: ChannelGroups
    factors: Mapping[int, np.ndarray]

    def __post_init__(self):
        for index, factors in self.factors.items():
            size = _group_size(self.groups, index)
            if np.shape(factors) != (size,) or not np.all(np.isfinite(factors)) or np.any(np.asarray(factors) <= 0):
                raise ValueError(f"scales of channel group {index} are not {size} finite positive numbers")

    def outputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """``values`` times the factor of each output channel."""
        return values * _along(self.groups.output_scale(layer, self.factors), values, axis)

    def inputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """``values`` divided by the factor of each input channel."""
        return values / _along(self.groups.input_scale(layer, self.factors), values, axis)


@dataclass(frozen=True, eq=False)
class Rotations:
    """Rotations of groups that follow one, by their index.

    They are orthogonal float64 ``[size, size]``: new channels = matrix @ old channels. The function stays up to float32
    rounding.

    Raises:
        ValueError: an unknown group, or a matrix that is not orthogonal or has another size.
    """

    groups: ChannelGroups
    matrices: Mapping[int, np.ndarray]

    def __post_init__(self):
        for index, matrix in self.matrices.items():
            size = _group_size(self.groups, index)
            if np.shape(matrix) != (size, size) or not np.allclose(matrix @ matrix.T, np.eye(size), atol=1e-6):
                raise ValueError(f"the rotation of channel group {index} is no orthogonal matrix of {size} x {size}")

    def outputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """``values`` with the output channels mixed."""
        return self._mix(values, self.groups.layers[layer].outputs, axis)

    def inputs(self, layer: str, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """``values`` with the input channels mixed: as ``R`` is orthogonal, that is its transpose on the other side."""
        return self._mix(values, self.groups.layers[layer].inputs, axis)

    def _mix(self, values: np.ndarray, layout: tuple[ChannelRun, ...], axis: int) -> np.ndarray:
        mixed = np.array(np.moveaxis(values, axis, -1), np.float64)
        for run, channels in runs_with_channels(layout):
            if run.group is not None and run.group in self.matrices:
                mixed[..., channels] = mixed[..., channels] @ self.matrices[run.group].T
        return np.moveaxis(mixed, -1, axis)


@dataclass(frozen=True)
class KernelAxes:
    """Where the channels are in the kernel of a layer; a depthwise one has all of them along one axis."""

    outputs: int
    inputs: int


def move_kernel(move: Move, layer: str, kernel: np.ndarray, axes: KernelAxes) -> np.ndarray:
    """The kernel of a layer after a move, float32 in the shape that it has."""
    moved = move.outputs(layer, kernel, axes.outputs)
    if move.groups.layers[layer].inputs:  # else what lies between two layers has one move for both of its sides
        moved = move.inputs(layer, moved, axes.inputs)
    return moved.astype(np.float32)


def _along(factors: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    """Factors of the channels, in a shape that broadcasts along an axis."""
    shape = [1] * values.ndim
    shape[axis] = len(factors)
    return factors.reshape(shape)


def _group_size(groups: ChannelGroups, index: int) -> int:
    if index not in range(len(groups.groups)):
        raise ValueError(f"there is no channel group {index}; the network has {len(groups.groups)}")
    return groups.groups[index].size
