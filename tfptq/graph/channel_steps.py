"""A Keras graph as the search for channel groups sees it."""

import keras

from tfptq.core.channel_graph import Change, ChannelGraph, Role, Step
from tfptq.core.channel_groups import ChannelGroups, find_groups
from tfptq.graph.channel_rules import (
    activation_follows,
    clip_level,
    concatenates_channels,
    is_activation,
    repeats_of,
    role_of,
)
from tfptq.graph.flat_graph import Call, FlatGraph, Value
from tfptq.graph.fold_batch_norm import output_channels
from tfptq.graph.read_graph import read_graph


def channel_groups(model: keras.Model, change: Change = Change.PERMUTATION) -> ChannelGroups:
    """Find the groups of channels of a canonical model that follow a change."""
    return find_groups(channel_graph(read_graph(model), change))


def channel_graph(graph: FlatGraph, change: Change) -> ChannelGraph:
    """The steps of a canonical graph for a change; its tensors are the values of the graph."""
    values = {value for call in graph.calls for value in (*call.inputs, *call.outputs)} | graph.output_values
    steps = tuple(_step(call, change) for call in graph.calls)
    return ChannelGraph(change, steps, graph.output_values, {value: _channels(value) for value in values})


def _step(call: Call, change: Change) -> Step:
    unit, role = call.unit, role_of(call, change)
    if role is Role.CONCATENATE and not concatenates_channels(call):
        role = Role.MERGE
    produces = role in (Role.PRODUCER, Role.DEPTHWISE)
    return Step(
        unit.name,
        role,
        tuple(call.inputs),
        call.outputs,
        channels=output_channels(unit) if produces else 0,
        is_free=not produces or activation_follows(unit, change),
        repeats=(repeats_of(call) or 1) if role is Role.REPEAT else 1,
        clip_level=clip_level(unit),
        is_activation=is_activation(call),
    )


def _channels(value: Value) -> int | None:
    return value.shape[-1] if len(value.shape) > 1 else None
