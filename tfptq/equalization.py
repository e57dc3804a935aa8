"""Equalize the channels of a whole model: multiply them in one layer, divide them in the next (``core.equalization``).

This joins three parts: ``tfptq.graph`` finds the groups of channels that follow a scale and what room the data leaves
them, ``tfptq.core.equalization`` finds factors from the weights that read them, and ``tfptq.graph`` applies them.

Layers count that have a scale for each channel or block and less than 8 bits: with 8, rounding adds so little that
there is nothing to gain. Depthwise layers do not: a scale of its own for each channel takes any factor up.
"""

from collections.abc import Iterable, Mapping

import keras
import numpy as np

from tfptq.config import PerTensor, QuantizationConfig
from tfptq.core.affine import weight_code_limit
from tfptq.core.equalization import Reader, equalizing_factors
from tfptq.graph import scale_channels
from tfptq.graph.channel_groups import ChannelGroup, Side, analyse
from tfptq.graph.channel_room import ChannelRoom, channel_room
from tfptq.graph.rebuild import read_graph
from tfptq.layers import supports, weight_specs

#: Samples that the room of the channels is measured on.
EQUALIZATION_SAMPLES = 256
#: Largest factor, and one over the smallest: a channel that shrinks further loses too many steps of its activations.
MOST_GROWTH = 8.0
MOST_SHRINKAGE = 16.0


def equalize_channels(
    model: keras.Model, config: QuantizationConfig, batches: Iterable[Mapping[str, np.ndarray]]
) -> keras.Model:
    """Scale channels between layers so that the weights that read them lose less by rounding.

    Args:
        model: canonical model (``tfptq.graph.canonicalise``); it is not changed.
        config: how its layers are quantized.
        batches: input name -> samples, at least one batch.

    Returns:
        A model with the same layers that computes the same function on these samples, up to float32 rounding. On
        others it may differ where a ReLU6 cuts off a channel that it cut off in no sample.
    """
    graph = read_graph(model)
    groups = analyse(graph, scaling=True)
    readers = {group.index: _readers(model, config, group) for group in groups.groups}
    if not any(readers.values()):
        return model
    rooms = channel_room(graph, groups, batches)
    factors = {
        index: equalizing_factors(found, *_limits(rooms[index])) for index, found in readers.items() if len(found) > 0
    }
    return scale_channels(model, groups, factors)


def _limits(room: ChannelRoom) -> tuple[np.ndarray, np.ndarray]:
    lowest = np.where(room.fixed, 1.0, 1.0 / MOST_SHRINKAGE)
    highest = np.where(room.fixed, 1.0, np.minimum(room.growth, MOST_GROWTH))
    return lowest, highest


def _readers(model: keras.Model, config: QuantizationConfig, group: ChannelGroup) -> list[Reader]:
    """The layers that gain from scaling a group."""
    found = []
    for side in group.consumers:
        layer, layer_config = model.get_layer(side.layer), config.for_layer(side.layer)
        per_tensor = isinstance(layer_config.granularity, PerTensor)
        if not supports(layer) or layer_config.skip or per_tensor or layer_config.weight_bits >= 8:
            continue
        (spec,) = weight_specs(layer)
        view = np.abs(spec.values())
        if view.shape[1] > 1:
            found.append(_reader(view.max(axis=2), side, group.size, weight_code_limit(layer_config.weight_bits)))
    return found


def _reader(magnitudes: np.ndarray, side: Side, size: int, limit: int) -> Reader:
    """What a kernel with the magnitudes ``[O, I]`` and codes up to ``limit`` is for a group on its input side."""
    columns = np.array(side.offsets)[:, None] + np.arange(size)  # [repeats, C]
    others = np.delete(magnitudes, columns.reshape(-1), axis=1)
    return Reader(
        magnitudes=magnitudes[:, columns].max(axis=1),
        others=others.max(axis=1, initial=0.0),
        other_inputs=others.shape[1],
        importance=1.0 / limit**2,
    )
