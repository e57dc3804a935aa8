"""Rotate the channels of a whole model where only linear layers lie between its kernels.

``tfptq.graph`` finds the groups of channels that may be mixed, and mixes them; ``tfptq.core`` learns how, on weights
alone. Each group is learned on the weights as they are, so that for kernels that are rotated on both sides, as in
stacks of linear layers, the noise is not exactly what was found. Such groups are the bottlenecks of inverted residuals
(MobileNetV2 and V3, EfficientNet), codes of autoencoders without an activation function, and the like.
"""

from collections.abc import Callable

import keras
import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.affine import weight_code_limit
from tfptq.core.rotation import RotatedKernel, learn_rotation
from tfptq.graph import channel_groups, rotate_channels
from tfptq.graph.channel_groups import ChannelGroup, Side
from tfptq.graph.channel_rules import Change
from tfptq.layers import supports, weight_specs

#: Groups with more channels stay as they are: each step of the search costs their number to the power of three.
MOST_CHANNELS = 512


def rotate_linear_channels(
    model: keras.Model,
    config: QuantizationConfig,
    seed: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> keras.Model:
    """Mix the channels between linear layers, so that weights of less than 8 bits lose less by rounding.

    Args:
        model: canonical model; it is returned where nothing is gained.
        config: how its layers are quantized.
        seed: of the rotations that the search starts from.
        advance: called with the number of channel groups that had their turn.
    """
    groups = channel_groups(model, Change.ROTATION)
    rotations = {}
    for group in groups.groups:
        kernels = _kernels(model, config, group)
        if any(kernel.importance for kernel in kernels) and group.size <= MOST_CHANNELS:
            rotation = learn_rotation(kernels, group.size, seed)
            if not np.array_equal(rotation, np.eye(group.size)):
                rotations[group.index] = rotation
        advance(1)
    return rotate_channels(model, groups, rotations) if rotations else model


def _kernels(model: keras.Model, config: QuantizationConfig, group: ChannelGroup) -> list[RotatedKernel]:
    """The producers and consumers of a group; those with less than 8 bits have an importance."""
    found = []
    for side in (*group.producers, *group.consumers):
        layer = model.get_layer(side.layer)
        if not supports(layer):
            continue
        (spec,), layer_config = weight_specs(layer), config.for_layer(side.layer)
        view = spec.values() if side.axis == "output" else _columns(spec.values(), side, group.size)
        narrow = not layer_config.keeps_weights and layer_config.weight_bits < 8
        importance = 1.0 / weight_code_limit(layer_config.weight_bits) ** 2 if narrow else 0.0
        found.append(RotatedKernel(view, side.axis, importance))
    return found


def _columns(view: np.ndarray, side: Side, size: int) -> np.ndarray:
    """The columns of a kernel ``[O, I, T]`` that read a group, as ``[O, C, repeats * T]``."""
    columns = np.array(side.offsets)[:, None] + np.arange(size)  # [repeats, C]
    return view[:, columns].transpose(0, 2, 1, 3).reshape(len(view), size, -1)
