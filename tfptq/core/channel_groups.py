"""Channel groups: which channel axes of a network have to be permuted (or scaled, or rotated) together.

A *group* is a set of channel axes of one length that may be changed in one way, everywhere at once, without changing
the function of the network. Its *producers* are the layers whose outputs have these channels (rows of ``W[O, I, T]``
and bias); its *consumers* read them (columns of ``W``); *per-channel* layers lie in between and have parameters for
each channel (depthwise kernels, BatchNormalization, PReLU).

Every tensor has a *layout*: the groups that lie side by side along its channel axis. The analysis goes through the
steps in order and carries layouts from inputs to outputs:

* a convolution or dense layer starts a new group;
* elementwise steps, pooling and padding pass a layout on;
* sums, products, ... make the groups of their inputs one group (union-find);
* a concatenation puts layouts side by side, flattening repeats a layout H*W times;
* anything else *pins* the groups that reach it: they stay as they are. Inputs and outputs of the network pin, too.

A ``Change`` is a permutation of the channels; positive factors, for equalization across layers (Nagel et al., arXiv
1906.04721, section 4.1); or a rotation. Each goes through fewer steps than the one before (``channel_graph``). Under
factors, a depthwise layer ends one group and starts another, because it can take one factor in and give another out,
and a group that passes a ReLU6 is *clipped*: its channels follow a factor only below the clip level.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.core.channel_graph import Change, ChannelGraph, Role, Step, Tensor


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
    """All free groups of a network, in the order in which they start: ``groups[k].index == k``.

    ``layers`` are the layouts of every layer with a group, by its name; ``tensors`` those of every such tensor.
    """

    groups: tuple[ChannelGroup, ...]
    layers: Mapping[str, LayerChannels]
    tensors: Mapping[Tensor, tuple[ChannelRun, ...]]

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


def find_groups(graph: ChannelGraph) -> ChannelGroups:
    """Find the groups of channels that follow the change of a graph."""
    analysis = _Analysis(graph)
    for step in graph.steps:
        analysis.visit(step)
    for tensor in graph.outputs:
        analysis.pin(analysis.layouts[tensor])
    return analysis.result()


Layout = tuple[int, ...]  # Numbers of groups, side by side.


class _Analysis:
    """State of one pass over the steps; groups are numbers in a union-find forest."""

    def __init__(self, graph: ChannelGraph):
        self._graph, self._scaling = graph, graph.change is Change.SCALE
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._pinned: list[bool] = []
        self._clipped: list[bool] = []
        self._inputs: dict[str, Layout] = {}
        self._outputs: dict[str, Layout] = {}
        self.layouts: dict[Tensor, Layout] = {}
        for tensor in (*(tensor for step in graph.steps for tensor in step.inputs), *graph.outputs):
            if tensor not in graph.producers:
                self.layouts[tensor] = self._new_pinned(tensor)

    def visit(self, step: Step) -> None:
        role, inputs = step.role, [self.layouts[tensor] for tensor in step.inputs]
        if role is Role.PRODUCER or (role is Role.DEPTHWISE and self._scaling):
            self.layouts[step.output] = self._through_producer(step, inputs[0])
        elif role in (Role.DEPTHWISE, Role.PER_CHANNEL):
            self._unite(self._outputs.setdefault(step.name, inputs[0]), inputs[0])
            self.layouts[step.output] = inputs[0]
        elif role is Role.ELEMENTWISE:
            self.layouts[step.output] = inputs[0]
        elif role is Role.MERGE and (full := self._terms_with_all_channels(step, inputs)):
            for layout in full[1:]:
                self._unite(full[0], layout)
            self.layouts[step.output] = full[0]
        elif role is Role.CONCATENATE and all(inputs):
            self.layouts[step.output] = sum(inputs, ())
        elif role is Role.REPEAT:
            self.layouts[step.output] = inputs[0] * step.repeats
        else:
            self._through_barrier(step, inputs)
        if self._scaling and step.clip_level is not None:
            for group in self.layouts[step.output]:
                self._clipped[self._find(group)] = True

    def _through_producer(self, step: Step, layout: Layout) -> Layout:
        self._unite(self._inputs.setdefault(step.name, layout), layout)  # All calls of a shared layer agree.
        if step.name not in self._outputs:
            self._outputs[step.name] = (self._new(step.channels, pinned=False),)
        if not step.is_free:
            self.pin(self._outputs[step.name])
        return self._outputs[step.name]

    def _terms_with_all_channels(self, step: Step, inputs: list[Layout]) -> list[Layout]:
        """The layouts of what a step combines; none if channels of its result hang on several of a term."""
        channels = [self._graph.channels[tensor] for tensor in step.inputs]
        wanted = self._graph.channels[step.output]
        if any(found not in (wanted, 1) for found in channels):
            return []
        # A term with one channel is broadcast over all channels, whatever their order.
        return [layout for found, layout in zip(channels, inputs, strict=True) if found == wanted]

    def _through_barrier(self, step: Step, inputs: list[Layout]) -> None:
        for layout in inputs:
            self.pin(layout)
        for tensor in step.outputs:
            self.layouts[tensor] = self._new_pinned(tensor)

    def _new(self, size: int, pinned: bool) -> int:
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        self._pinned.append(pinned)
        self._clipped.append(False)
        return len(self._parents) - 1

    def _new_pinned(self, tensor: Tensor) -> Layout:
        size = self._graph.channels[tensor]
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
            name: LayerChannels(runs(self._inputs.get(name, ())), runs(layout))
            for name, layout in self._outputs.items()
        }
        layers = {name: channels for name, channels in layers.items() if _any_free(channels.inputs + channels.outputs)}
        tensors = {tensor: runs(layout) for tensor, layout in self.layouts.items()}
        return ChannelGroups(
            tuple(
                _group(index, self._sizes[root], layers, clipped=self._clipped[root]) for index, root in enumerate(free)
            ),
            layers,
            {tensor: layout for tensor, layout in tensors.items() if _any_free(layout)},
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
