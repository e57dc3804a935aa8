"""Channel groups: which channel axes of a graph have to be permuted (or scaled, or rotated) together.

A *group* is a set of channel axes of one length that may be changed in one way, everywhere at once, without changing
the function of the model. Its *producers* are the layers whose outputs have these channels (rows of ``W[O, I, T]`` and
bias); its *consumers* read them (columns of ``W``); *per-channel* layers lie in between and have parameters for each
channel (depthwise kernels, BatchNormalization, PReLU).

Every tensor has a *layout*: the groups that lie side by side along its channel axis. The analysis goes through the
calls in order and carries layouts from inputs to outputs:

* a convolution or dense layer starts a new group;
* elementwise calls, pooling and padding pass a layout on;
* Add, Multiply, ... make the groups of their inputs one group (union-find);
* Concatenate puts layouts side by side, Flatten repeats a layout H*W times;
* anything else *pins* the groups that reach it: they stay as they are. Inputs and outputs of the model pin, too.

A ``Change`` is a permutation of the channels; positive factors, for equalization across layers (Nagel et al., arXiv
1906.04721, section 4.1); or a rotation. Each goes through fewer layers than the one before (``channel_rules``). Under
factors, a depthwise layer ends one group and starts another, because it can take one factor in and give another out,
and a group that passes a ReLU6 is *clipped*: its channels follow a factor only below the clip level.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.graph.channel_rules import (
    Change,
    Role,
    activation_follows,
    clip_level,
    concatenates_channels,
    repeats_of_channels,
    role_of,
)
from tfptq.graph.flat_graph import Call, FlatGraph, Unit, Value
from tfptq.graph.fold_batch_norm import output_channels
from tfptq.graph.rebuild import read_graph


@dataclass(frozen=True)
class Side:
    """One channel axis of a layer that has a group in it.

    Attributes:
        axis: ``"output"`` (rows of ``W[O, I, T]``) or ``"input"`` (columns).
        offsets: where on that axis the channels of the group start; several after Flatten or Concatenate.
    """

    layer: str
    axis: str
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channel axes that change together.

    Attributes:
        producers: layers whose output channels are the group.
        consumers: layers whose input channels hold the group.
        per_channel: layers in between with parameters for each channel, with axis ``"output"``.
        clipped: whether its channels follow a scale only below a clip level.
    """

    index: int
    size: int
    producers: tuple[Side, ...]
    consumers: tuple[Side, ...]
    per_channel: tuple[Side, ...]
    clipped: bool = False


@dataclass(frozen=True)
class ChannelRun:
    """A run of channels in a layout: a group, or None for channels that are pinned."""

    group: int | None
    size: int


@dataclass(frozen=True)
class LayerChannels:
    """The layouts of a layer's channel axes; no inputs for per-channel layers."""

    inputs: tuple[ChannelRun, ...]
    outputs: tuple[ChannelRun, ...]


@dataclass(frozen=True)
class ChannelGroups:
    """All free groups of a model, in the order in which they start: ``groups[k].index == k``.

    ``layers`` are the layouts of every layer with a group, by its name; ``values`` those of every such tensor of the
    graph.
    """

    groups: tuple[ChannelGroup, ...]
    layers: Mapping[str, LayerChannels]
    values: Mapping[Value, tuple[ChannelRun, ...]]

    def output_order(self, layer: str, permutations: Mapping[int, np.ndarray]) -> np.ndarray:
        """Where each output channel of a layer comes from, int64 ``[O]``: ``new = old[order]``.

        ``permutations`` are ``[size]``, new channel -> old channel, by group index; other groups stay.
        """
        return _order(self.layers[layer].outputs, permutations)

    def input_order(self, layer: str, permutations: Mapping[int, np.ndarray]) -> np.ndarray:
        """The same along the input channels, int64 ``[I]``."""
        return _order(self.layers[layer].inputs, permutations)

    def output_scale(self, layer: str, scales: Mapping[int, np.ndarray]) -> np.ndarray:
        """The factor of each output channel of a layer, float64 ``[O]``, from {group index: factors [size]}."""
        return _spread(self.layers[layer].outputs, scales, np.ones)

    def input_scale(self, layer: str, scales: Mapping[int, np.ndarray]) -> np.ndarray:
        """The same along the input channels, float64 ``[I]``."""
        return _spread(self.layers[layer].inputs, scales, np.ones)


def _order(layout: tuple[ChannelRun, ...], permutations: Mapping[int, np.ndarray]) -> np.ndarray:
    starts = np.concatenate([np.full(run.size, channels.start) for run, channels in runs_with_channels(layout)])
    return starts + _spread(layout, permutations, np.arange).astype(np.int64)


def _spread(
    layout: tuple[ChannelRun, ...], values: Mapping[int, np.ndarray], default: Callable[[int], np.ndarray]
) -> np.ndarray:
    """The values of each run, side by side; ``default(size)`` for runs without a group, and groups without values."""

    def values_of(run: ChannelRun) -> np.ndarray:
        return default(run.size) if run.group is None or run.group not in values else values[run.group]

    return np.concatenate(list(map(values_of, layout)))


def runs_with_channels(layout: Iterable[ChannelRun]) -> Iterator[tuple[ChannelRun, slice]]:
    """Each run of a layout, and where its channels are on the axis."""
    start = 0
    for run in layout:
        yield run, slice(start, start + run.size)
        start += run.size


def channel_groups(model: keras.Model, change: Change = Change.PERMUTATION) -> ChannelGroups:
    """Find the groups of channels of a canonical model that follow a change."""
    return find_groups(read_graph(model), change)


def find_groups(graph: FlatGraph, change: Change) -> ChannelGroups:
    """``channel_groups`` of a graph that was read already."""
    analysis = _Analysis(graph, change)
    for call in graph.calls:
        analysis.visit(call)
    for value in graph.output_values:
        analysis.pin(analysis.layouts[value])
    return analysis.result()


Layout = tuple[int, ...]  # Numbers of groups, side by side.


class _Analysis:
    """State of one pass over the calls; groups are numbers in a union-find forest."""

    def __init__(self, graph: FlatGraph, change: Change):
        self._graph, self._change = graph, change
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._pinned: list[bool] = []
        self._clipped: list[bool] = []
        self._inputs: dict[Unit, Layout] = {}
        self._outputs: dict[Unit, Layout] = {}
        self.layouts: dict[Value, Layout] = {}
        for call in graph.calls:
            for value in call.inputs:
                if value not in graph.producers:
                    self.layouts[value] = self._new_pinned(value)
        for value in graph.output_values - graph.producers.keys():
            self.layouts[value] = self._new_pinned(value)

    def visit(self, call: Call) -> None:
        role, scaling = role_of(call, self._change), self._change is Change.SCALE
        inputs = [self.layouts[value] for value in call.inputs]
        if role is Role.PRODUCER or (role is Role.DEPTHWISE and scaling):
            self.layouts[call.output] = self._through_producer(call.unit, inputs[0])
        elif role in (Role.DEPTHWISE, Role.PER_CHANNEL):
            self._unite(self._outputs.setdefault(call.unit, inputs[0]), inputs[0])
            self.layouts[call.output] = inputs[0]
        elif role is Role.ELEMENTWISE:
            self.layouts[call.output] = inputs[0]
        elif role is Role.MERGE or (role is Role.CONCATENATE and not concatenates_channels(call)):
            self.layouts[call.output] = self._through_merge(call, inputs)
        elif role is Role.CONCATENATE:
            self.layouts[call.output] = sum(inputs, ())
        elif role is Role.RESHAPE and (repeats := repeats_of_channels(call.inputs[0], call.output)) is not None:
            self.layouts[call.output] = inputs[0] * repeats
        else:
            self._through_barrier(call, inputs)
        if scaling and clip_level(call.unit) is not None:
            for group in self.layouts[call.outputs[0]]:
                self._clipped[self._find(group)] = True

    def _through_producer(self, unit: Unit, layout: Layout) -> Layout:
        self._unite(self._inputs.setdefault(unit, layout), layout)  # All calls of a shared layer agree.
        if unit not in self._outputs:
            free = activation_follows(unit, self._change)
            self._outputs[unit] = (self._new(output_channels(unit), pinned=not free),)
        return self._outputs[unit]

    def _through_merge(self, call: Call, inputs: list[Layout]) -> Layout:
        channels = call.output.shape[-1:]
        if any(value.shape[-1:] not in (channels, (1,)) for value in call.inputs):
            return self._through_barrier(call, inputs)
        # A term with one channel is broadcast over all channels, whatever their order.
        full = [layout for value, layout in zip(call.inputs, inputs, strict=True) if value.shape[-1:] == channels]
        for layout in full[1:]:
            self._unite(full[0], layout)
        return full[0]

    def _through_barrier(self, call: Call, inputs: list[Layout]) -> Layout:
        for layout in inputs:
            self.pin(layout)
        for value in call.outputs:
            self.layouts[value] = self._new_pinned(value)
        return self.layouts[call.outputs[0]]

    def _new(self, size: int, pinned: bool) -> int:
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        self._pinned.append(pinned)
        self._clipped.append(False)
        return len(self._parents) - 1

    def _new_pinned(self, value: Value) -> Layout:
        size = value.shape[-1] if len(value.shape) > 1 else None
        return () if size is None else (self._new(size, pinned=True),)

    def _find(self, group: int) -> int:
        while self._parents[group] != group:
            group = self._parents[group]
        return group

    def pin(self, layout: Layout) -> None:
        for group in layout:
            self._pinned[self._find(group)] = True

    def _unite(self, first: Layout, second: Layout) -> None:
        """Make two layouts one; where their runs do not match, all their groups are pinned."""
        if [self._sizes[group] for group in first] != [self._sizes[group] for group in second]:
            self.pin(first + second)
            return
        for one, other in zip(first, second, strict=True):
            one, other = self._find(one), self._find(other)
            if one != other:
                self._parents[max(one, other)] = min(one, other)
                self._pinned[min(one, other)] |= self._pinned[max(one, other)]
                self._clipped[min(one, other)] |= self._clipped[max(one, other)]

    def result(self) -> ChannelGroups:
        roots = sorted({self._find(group) for group in range(len(self._parents))})
        free = [root for root in roots if not self._pinned[root] and self._sizes[root] > 1]
        numbers = {root: index for index, root in enumerate(free)}

        def runs(layout: Layout) -> tuple[ChannelRun, ...]:
            return tuple(ChannelRun(numbers.get(self._find(group)), self._sizes[group]) for group in layout)

        layers = {
            unit.name: LayerChannels(runs(self._inputs.get(unit, ())), runs(layout))
            for unit, layout in self._outputs.items()
        }
        layers = {name: channels for name, channels in layers.items() if _any_free(channels.inputs + channels.outputs)}
        values = {value: runs(layout) for value, layout in self.layouts.items()}
        return ChannelGroups(
            tuple(
                _group(index, self._sizes[root], layers, clipped=self._clipped[root]) for index, root in enumerate(free)
            ),
            layers,
            {value: layout for value, layout in values.items() if _any_free(layout)},
        )


def _any_free(layout: tuple[ChannelRun, ...]) -> bool:
    return any(run.group is not None for run in layout)


def _group(index: int, size: int, layers: Mapping[str, LayerChannels], clipped: bool) -> ChannelGroup:
    producers: list[Side] = []
    consumers: list[Side] = []
    per_channel: list[Side] = []
    for name, channels in layers.items():
        outputs, inputs = _offsets(channels.outputs, index), _offsets(channels.inputs, index)
        if outputs:
            (producers if channels.inputs else per_channel).append(Side(name, "output", outputs))
        if inputs:
            consumers.append(Side(name, "input", inputs))
    return ChannelGroup(index, size, tuple(producers), tuple(consumers), tuple(per_channel), clipped)


def _offsets(layout: tuple[ChannelRun, ...], group: int) -> tuple[int, ...]:
    return tuple(channels.start for run, channels in runs_with_channels(layout) if run.group == group)
