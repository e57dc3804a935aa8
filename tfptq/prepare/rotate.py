"""Rotate the channels of a whole model where only linear layers lie between its kernels.

``tfptq.core`` finds the groups of channels that may be mixed, and learns how, on weights alone. Each group is learned
on the weights as they are, so that for kernels that are rotated on both sides, as in stacks of linear layers, the noise
is not exactly what was found. Such groups are the bottlenecks of inverted residuals (MobileNetV2 and V3, EfficientNet),
codes of autoencoders without an activation function, and the like.
"""

from collections.abc import Callable

import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.affine import weight_code_limit
from tfptq.core.channel_graph import Change
from tfptq.core.channel_groups import ChannelGroup, Side, find_groups
from tfptq.core.channel_moves import Rotations
from tfptq.core.rotation import RotatedKernel, learn_rotation
from tfptq.prepare.channel_networks import ChannelNetwork, Model, channel_network

#: Groups with more channels stay as they are: each step of the search costs their number to the power of three.
MOST_CHANNELS = 512


def rotate_linear_channels(
    model: Model,
    config: QuantizationConfig,
    seed: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> Model:
    """Mix the channels between linear layers, so that weights of less than 8 bits lose less by rounding.

    Args:
        model: canonical Keras model, or float file; it is returned where nothing is gained.
        config: how its layers are quantized.
        seed: of the rotations that the search starts from.
        advance: called with the number of channel groups that had their turn.
    """
    network = channel_network(model)
    groups = find_groups(network.graph(Change.ROTATION))
    rotations = {}
    for group in groups.groups:
        kernels = _kernels(network, config, group)
        if any(kernel.importance for kernel in kernels) and group.size <= MOST_CHANNELS:
            rotation = learn_rotation(kernels, group.size, seed)
            if not np.array_equal(rotation, np.eye(group.size)):
                rotations[group.index] = rotation
        advance(1)
    return network.moved(Rotations(groups, rotations)).model if rotations else model


def _kernels(network: ChannelNetwork, config: QuantizationConfig, group: ChannelGroup) -> list[RotatedKernel]:
    """The producers and consumers of a group; those with less than 8 bits have an importance."""
    found = []
    for side in (*group.producers, *group.consumers):
        kernel, layer_config = network.kernel(side.layer), config.for_layer(side.layer)
        if kernel is None:
            continue
        view = kernel if side.axis == "output" else _columns(kernel, side, group.size)
        narrow = not layer_config.keeps_weights and layer_config.weight_bits < 8
        importance = 1.0 / weight_code_limit(layer_config.weight_bits) ** 2 if narrow else 0.0
        found.append(RotatedKernel(view, side.axis, importance))
    return found


def _columns(view: np.ndarray, side: Side, size: int) -> np.ndarray:
    """The columns of a kernel ``[O, I, T]`` that read a group, as ``[O, C, repeats * T]``."""
    columns = np.array(side.offsets)[:, None] + np.arange(size)  # [repeats, C]
    return view[:, columns].transpose(0, 2, 1, 3).reshape(len(view), size, -1)
