"""Reorder the channels of a whole model, so that similar ones share a block (PTQ-SL, arXiv 2110.07809, section 3.4).

``tfptq.core`` finds the groups of channels that may move, and searches their orders on magnitudes alone. Only layers
with blocks count. What each adds to the objective is the expected noise of its rounding, relative to its weights,

    noise = sum over blocks of |block| S^2 / 12  /  sum of W^2,      S = max|W in block| / (2**(b-1) - 1).

``-10 log10(noise)`` estimates the signal-to-noise ratio of the quantized weights in dB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.affine import weight_code_limit
from tfptq.core.blocks import block_maxima
from tfptq.core.channel_graph import Change
from tfptq.core.channel_groups import ChannelGroups, ChannelRun, LayerChannels, find_groups, runs_with_channels
from tfptq.core.channel_moves import Permutations
from tfptq.core.reorder import AxisSegment, BlockedLayer, reorder
from tfptq.prepare.channel_networks import ChannelNetwork, Model, channel_network


@dataclass(frozen=True, eq=False)
class ReorderedLayer:
    """Expected noise of a layer relative to its weights, and largest magnitudes of its blocks, float32 ``[V, H]``."""

    noise_before: float
    noise_after: float
    maxima_before: np.ndarray
    maxima_after: np.ndarray


@dataclass(frozen=True, eq=False)
class ReorderedModel:
    """Result of ``reorder_channels``.

    Attributes:
        output_orders: layer -> old output channel at each new place, int64 ``[O]``, of every layer whose output
            channels moved.
        layers: layer -> what changed, of every layer with blocks.
    """

    model: Model
    output_orders: Mapping[str, np.ndarray]
    layers: Mapping[str, ReorderedLayer]


def reorder_channels(
    model: Model,
    config: QuantizationConfig,
    advance: Callable[[int], None] = lambda done: None,
) -> ReorderedModel:
    """Find an order of the channels that lowers the noise of block quantization, and give it to a network.

    The network is a canonical Keras model or a float file; its inputs and outputs keep their order. The sum of the
    layers' noises is never higher than before; a single layer's noise may be. ``advance`` is called with the number of
    channel groups that had their turn.
    """
    network = channel_network(model)
    groups = find_groups(network.graph(Change.PERMUTATION))
    layers = _blocked_layers(network, config, groups)
    sizes = {str(group.index): group.size for group in groups.groups}
    found = reorder(list(layers.values()), sizes, advance=advance)
    moved = {
        int(group): order for group, order in found.permutations.items() if not np.array_equal(order, np.sort(order))
    }
    orders = {name: groups.output_order(name, moved) for name in groups.layers}
    reordered = network.moved(Permutations(groups, moved)) if moved else network
    return ReorderedModel(
        reordered.model,
        {name: order for name, order in orders.items() if not np.array_equal(order, np.arange(len(order)))},
        {
            name: ReorderedLayer(
                float(found.before[at]),
                float(found.after[at]),
                _maxima(network, name, layer),
                _maxima(reordered, name, layer),
            )
            for at, (name, layer) in enumerate(layers.items())
        },
    )


def _blocked_layers(
    network: ChannelNetwork, config: QuantizationConfig, groups: ChannelGroups
) -> dict[str, BlockedLayer]:
    """The layers that count, as the search sees them; also those whose channels cannot move."""
    layers = {}
    for name in network.names:
        layer_config, view = config.for_layer(name), network.kernel(name)
        if view is None or layer_config.keeps_weights or not layer_config.granularity.has_blocks:
            continue  # layers with several kernels (attention) are no part of channel groups
        channels = groups.layers.get(name, LayerChannels((), ()))
        layers[name] = _blocked_layer(view, layer_config, channels)
    return layers


def _blocked_layer(view: np.ndarray, config: QuantizationConfig, channels: LayerChannels) -> BlockedLayer:
    outputs, inputs, taps = view.shape
    power = float(np.square(view, dtype=np.float64).sum()) or 1.0
    step = 1.0 / (12.0 * weight_code_limit(config.weight_bits) ** 2)  # S^2 / 12 for a block with maximum 1
    return BlockedLayer(
        np.abs(view).max(axis=2),
        config.granularity.block_shape(outputs, inputs),
        rows=_segments(channels.outputs),
        columns=_segments(channels.inputs),
        weight=taps * step / power,
    )


def _segments(layout: tuple[ChannelRun, ...]) -> tuple[AxisSegment, ...]:
    """Free groups along an axis, with their places."""
    return tuple(
        AxisSegment(str(run.group), channels.start)
        for run, channels in runs_with_channels(layout)
        if run.group is not None
    )


def _maxima(network: ChannelNetwork, name: str, layer: BlockedLayer) -> np.ndarray:
    """The largest magnitude of each block of a layer that counts."""
    view = network.kernel(name)
    assert view is not None
    return block_maxima(view, layer.block_shape)
