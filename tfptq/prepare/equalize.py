"""Equalize the channels of a whole model: multiply them in one layer, divide them in the next.

``tfptq.core`` finds the groups of channels that follow a scale, and factors; a ``ChannelNetwork`` observes channels and
applies factors. What decides on the factors are

* where some layers have less than 8 bits, the weights of those: a kernel that reads channels loses less by rounding
  when its columns are alike (``core.equalization``);
* where all have 8 bits, the activations: a channel whose values are small gets more codes of the grid that all
  channels of a tensor share (``core.channel_levelling``).

Before either, a group whose values are small beside those that it is concatenated with gets one factor for all its
channels, which costs nothing: a concatenation has one grid for all its parts.

Layers count that have a scale for each channel or block. For narrow weights, depthwise layers do not: a scale of its
own for each channel absorbs any factor.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.config import PerTensor, QuantizationConfig
from tfptq.core.affine import weight_code_limit
from tfptq.core.channel_graph import Change, ChannelGraph, Tensor
from tfptq.core.channel_groups import ChannelGroup, ChannelGroups, Side, find_groups, runs_with_channels
from tfptq.core.channel_headroom import (
    ChannelHeadroom,
    ChannelStatistics,
    activation_tensors,
    channel_headroom,
    limiting_tensors,
)
from tfptq.core.channel_levelling import GridReader, expected_noise, least_noise, levelling_factors
from tfptq.core.channel_moves import Scales
from tfptq.core.decibels import decibels
from tfptq.core.equalization import Reader, equalizing_factors
from tfptq.data.calibration import CalibrationData
from tfptq.prepare.channel_networks import ChannelNetwork, Model, channel_network

#: Samples that the channels are observed on for narrow weights. Activations need all: the largest values count.
SAMPLES_FOR_WEIGHTS = 256
#: For activations, all samples are read only where so many promise a group so many dB: few networks have one. The
#: estimate is too high, as few samples miss the largest values, so that it must be well above ``MIN_GAIN_DB``. A lower
#: limit costs more networks a pass over all samples for nothing; a higher one leaves some as they are.
SAMPLES_FOR_ESTIMATE, MIN_ESTIMATED_GAIN_DB = 32, 5.0
#: Groups of channels that gain less than so many dB stay as they are: expected noise is not that exact.
MIN_GAIN_DB = 1.0
#: Limits of the factor of a channel. One that filled its grid keeps 16 of 256 steps at the smallest factor, and one
#: gets three bits more at the largest. Wider limits help weights at the cost of activations.
MIN_FACTOR, MAX_FACTOR = 1.0 / 16.0, 8.0
#: Limit of a factor for all channels of a group, which costs nothing. A group that needs more has less than 4 steps of
#: 256.
MAX_GROUP_FACTOR = 64.0
#: Below this factor, a bit of the grid, concatenated groups stay as they are for narrow weights.
MIN_GROUP_FACTOR = 2.0
#: For activations, a channel stays so far below the largest of its tensor: other samples may exceed what was observed,
#: and would widen the grid of all channels. The number was chosen, not observed: at 1 nothing is kept back, and at 2 a
#: whole bit of the gain.
HEADROOM_MARGIN = 1.6


def equalize_channels(model: Model, config: QuantizationConfig, data: CalibrationData) -> Model:
    """Scale channels between layers so that the layers that read them lose less by rounding.

    Args:
        model: canonical Keras model, or float file.
        config: how its weights are quantized.
        data: samples.

    Returns:
        A model with the same layers that computes the same function on these samples, up to float32 rounding; ``model``
        itself where nothing is gained. On other samples it may differ where a ReLU6 cuts off a channel that it cut off
        in none of these.
    """
    network = _Network.of(channel_network(model), config)
    configs = map(config.for_layer, network.floats.names)
    if any(item.weight_bits < 8 and not item.keeps_weights for item in configs):
        batches = data.spread(SAMPLES_FOR_WEIGHTS)
        network = network.scaled(_factors_for_concatenations(network, batches))
        return network.scaled(_factors_for_weights(network, batches)).floats.model
    observer = network.floats.observer(activation_tensors(network.graph, network.groups))
    few = observer.observe(data.spread(SAMPLES_FOR_ESTIMATE))
    if not any(_factors_for_activations(network, few, MIN_ESTIMATED_GAIN_DB)):
        return model
    return network.scaled(dict(_factors_for_activations(network, observer.observe(data), MIN_GAIN_DB))).floats.model


@dataclass(frozen=True, eq=False)
class _Network:
    """A float network, how it is quantized, and its groups of channels that follow a scale."""

    floats: ChannelNetwork
    config: QuantizationConfig
    graph: ChannelGraph
    groups: ChannelGroups

    @classmethod
    def of(cls, floats: ChannelNetwork, config: QuantizationConfig) -> "_Network":
        graph = floats.graph(Change.SCALE)
        return cls(floats, config, graph, find_groups(graph))

    def scaled(self, factors: Mapping[int, np.ndarray]) -> "_Network":
        """The network with the channels of some groups scaled."""
        return _Network.of(self.floats.moved(Scales(self.groups, factors)), self.config) if factors else self

    def kernel(self, name: str) -> np.ndarray | None:
        """The kernel of a layer that is quantized, and with more than one scale."""
        own = self.config.for_layer(name)
        one_scale = isinstance(own.granularity, PerTensor) and own.scaler != "shift"
        return None if own.keeps_weights or one_scale else self.floats.kernel(name)


def _factors_for_weights(network: _Network, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[int, np.ndarray]:
    """Group index -> factors that make narrow weights easier to round."""
    graph, groups = network.graph, network.groups
    readers = {group.index: _readers(network, group) for group in groups.groups}
    if not any(readers.values()):
        return {}
    observer = network.floats.observer(limiting_tensors(graph, groups))
    headrooms = channel_headroom(graph, groups, observer.observe(batches))
    return {
        index: equalizing_factors(found, *_limits(headrooms[index]))
        for index, found in readers.items()
        if len(found) > 0
    }


def _limits(headroom: ChannelHeadroom) -> tuple[np.ndarray, np.ndarray]:
    lowest = np.where(headroom.fixed, 1.0, MIN_FACTOR)
    highest = np.where(headroom.fixed, 1.0, np.minimum(headroom.max_factor, MAX_FACTOR))
    return lowest, highest


def _readers(network: _Network, group: ChannelGroup) -> list[Reader]:
    """The layers with narrow weights that gain from scaling a group."""
    found = []
    for side in group.consumers:
        view, bits = network.kernel(side.layer), network.config.for_layer(side.layer).weight_bits
        if view is not None and bits < 8 and view.shape[1] > 1:
            magnitudes, others = _split(np.abs(view).max(axis=2), side, group.size)
            importance = 1.0 / weight_code_limit(bits) ** 2
            found.append(Reader(magnitudes, others.max(axis=1, initial=0.0), others.shape[1], importance))
    return found


def _columns(side: Side, size: int) -> np.ndarray:
    return np.array(side.offsets)[:, None] + np.arange(size)  # [repeats, C]


def _split(magnitudes: np.ndarray, side: Side, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes ``[O, I]`` at the channels of a group, the largest of the repeats ``[O, C]``, and at other inputs."""
    columns = _columns(side, size)
    return magnitudes[:, columns].max(axis=1), np.delete(magnitudes, columns.reshape(-1), axis=1)


def _factors_for_activations(
    network: _Network, observed: Mapping[Tensor, ChannelStatistics], least_gain_db: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Index and factors of each group whose expected noise of activations falls by ``least_gain_db`` or more."""
    graph, groups = network.graph, network.groups
    group_factors = _group_factors(groups, observed)
    alike = all(factor == 1.0 for factor in group_factors.values())
    scaled = {value: channels.scaled(_along(groups, value, group_factors)) for value, channels in observed.items()}
    headrooms = channel_headroom(graph, groups, scaled)
    for group in groups.groups:
        headroom, readers = headrooms[group.index], _grid_readers(network, group, scaled, group_factors)
        if not readers:
            continue
        # A channel of zeros stays as it is.
        highest = np.where(np.isfinite(headroom.max_factor), headroom.max_factor, 1.0) / HEADROOM_MARGIN
        highest = np.where(headroom.fixed, 1.0, np.clip(highest, 1.0, MAX_FACTOR))
        unscaled = readers if alike else _grid_readers(network, group, observed, {})
        before = expected_noise(unscaled, np.ones(group.size))
        if _gain_db(before, least_noise(readers, highest)) < least_gain_db:
            continue  # most groups of most networks, and the search takes long
        found = levelling_factors(readers, highest)
        if _gain_db(before, expected_noise(readers, found)) >= least_gain_db:
            yield group.index, group_factors[group.index] * found


def _gain_db(before: float, after: float) -> float:
    """By how much noise falls; nothing is gained where there was none."""
    return decibels(before, after) if before > 0.0 else -math.inf


def _factors_for_concatenations(
    network: _Network, batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[int, np.ndarray]:
    """Group index -> factors of the groups that would have few codes beside those that they are concatenated with."""
    values = [value for value in activation_tensors(network.graph, network.groups) if _is_shared(network.groups, value)]
    group_factors = _group_factors(network.groups, network.floats.observer(values).observe(batches))
    return {
        group.index: np.full(group.size, group_factors[group.index])
        for group in network.groups.groups
        if group_factors[group.index] >= MIN_GROUP_FACTOR
    }


def _group_factors(groups: ChannelGroups, observed: Mapping[Tensor, ChannelStatistics]) -> dict[int, float]:
    """Group index -> one factor for all its channels, up to the largest of the others that it is concatenated with.

    A tensor of one group is as fine after it as before: its step grows with its values. Groups with a clip level stay.
    """
    factors: dict[int, float] = {}
    for value, channels in observed.items():
        if not _is_shared(groups, value):
            continue
        for run, own in runs_with_channels(groups.tensors[value]):
            largest = channels.magnitudes[own].max(initial=0.0)
            if run.group is not None and largest > 0.0:
                headroom = max(channels.magnitudes.max() / largest / HEADROOM_MARGIN, 1.0)
                factors[run.group] = min(factors.get(run.group, MAX_GROUP_FACTOR), headroom)
    return {group.index: 1.0 if group.clipped else factors.get(group.index, 1.0) for group in groups.groups}


def _is_shared(groups: ChannelGroups, value: Tensor) -> bool:
    """Whether the channels of a tensor are not all of one group."""
    return len({run.group for run in groups.tensors[value]}) > 1


def _along(groups: ChannelGroups, value: Tensor, factors: Mapping[int, float]) -> np.ndarray:
    """The factor of each channel of a tensor, float64 ``[C]``; 1 for those of no group."""
    layout = groups.tensors[value]
    return np.repeat(
        [1.0 if run.group is None else factors.get(run.group, 1.0) for run in layout], [run.size for run in layout]
    )


def _grid_readers(
    network: _Network,
    group: ChannelGroup,
    observed: Mapping[Tensor, ChannelStatistics],
    group_factors: Mapping[int, float],
) -> list[GridReader]:
    """The layers that read a group; none if one of them has a single scale.

    ``observed`` are the statistics once ``group_factors``, one for all channels of each group, are applied.
    """
    steps = 2.0**network.config.activation_bits - 1.0
    sides = {side.layer: side for side in group.consumers}
    found = []
    for step in network.graph.steps:
        side = sides.get(step.name)
        if side is None:
            continue
        view, value = network.kernel(side.layer), step.inputs[0]
        if view is None:
            return []
        factors = _along(network.groups, value, group_factors)
        depthwise = view.shape[1] == 1  # its outputs are the channels
        view = view / (factors[:, None, None] if depthwise else factors[None, :, None])
        found.append(_grid_reader(view, side, group.size, observed[value], steps))
    return found


def _grid_reader(view: np.ndarray, side: Side, size: int, values: ChannelStatistics, steps: float) -> GridReader:
    """What a kernel ``[O, I, T]`` that reads a tensor is for a group on its input side."""
    rounding, columns = (values.span / steps) ** 2 / 12.0, _columns(side, size)
    if view.shape[1] == 1:  # depthwise: its outputs are the channels
        # Kernels with one input look the same, and have one channel to all their outputs.
        energy = np.square(view, dtype=np.float64).sum(axis=(1, 2)).reshape(len(values.power), -1).sum(axis=1)
        signal = float(energy @ values.power)
        return GridReader(
            energy=energy[columns[0]],
            magnitudes=None,
            others=np.zeros(0),
            power=values.power[columns[0]],
            other_power=0.0,
            rounding=rounding,
            signal=signal,
        )
    power = view.shape[2] * values.power
    energy = np.square(view, dtype=np.float64).sum(axis=(0, 2))
    magnitudes, others = _split(np.abs(view).max(axis=2), side, size)
    return GridReader(
        energy=energy[columns].sum(axis=0),
        magnitudes=magnitudes,
        others=others.max(axis=1, initial=0.0),
        power=power[columns].sum(axis=0),
        other_power=float(np.delete(power, columns.reshape(-1)).sum()),
        rounding=rounding,
        signal=float(energy @ power) / view.shape[2],
    )
