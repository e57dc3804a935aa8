"""The layers at the edges of a model: those next to its inputs and its outputs.

In a chain they are the first and the last layer. A model with branches has one or more for each input and each output.
A layer is next to the inputs if one of the tensors it reads is computed from inputs alone, by operations without
weights. Where paths meet, as in ``x + conv(x)``, the sum has passed a layer: else a stream of residual blocks that
starts at an input would put a layer of each block at the edge. An input without a layer by this rule gets the first
layer that it reaches at all. Outputs are the same backwards.
"""

from collections.abc import Collection, Hashable, Iterable
from typing import Any

import keras

from tfptq.graph.flat_graph import values_in
from tfptq.graph.read_graph import read_graph

_Step = tuple[str, Iterable[Any], Iterable[Any]]


def edge_layers(model: keras.Model, names: Collection[str]) -> list[str]:
    """Names of the layers next to the inputs or the outputs of a flat model.

    ``names`` are the layers that count, in the order of the answer; all others are operations on the way.
    """
    graph = read_graph(model)
    forward = [(call.unit.name, call.inputs, call.outputs) for call in graph.calls]
    backward = [(call.unit.name, call.outputs, call.inputs) for call in reversed(graph.calls)]
    found = next_to(values_in(graph.inputs), forward, names) | next_to(values_in(graph.outputs), backward, names)
    return [name for name in names if name in found]


def next_to(roots: Iterable[Hashable], steps: Iterable[_Step], names: Collection[str]) -> set[str]:
    """The layers next to ``roots``; ``steps`` are (name, values on the side of the roots, values on the far side)."""
    reached_from: dict[Hashable, set[Hashable]] = {value: {value} for value in roots}  # without passing a layer
    beyond: set[Hashable] = set()  # values that are, on one path at least, on the far side of a layer
    direct: set[str] = set()
    candidates: dict[Hashable, list[str]] = {value: [] for value in roots}
    for name, near, far in steps:
        taken = [value for value in near if value in reached_from or value in beyond]
        origins = set().union(*(reached_from.get(value, ()) for value in taken))
        if name in names:
            if any(value in reached_from and value not in beyond for value in taken):
                direct.add(name)
            for value in origins:
                candidates[value].append(name)
            beyond.update(far)
            continue
        if origins:
            for value in far:
                reached_from.setdefault(value, set()).update(origins)
        if any(value in beyond for value in taken):
            beyond.update(far)
    return direct | {layers[0] for layers in candidates.values() if layers and not direct.intersection(layers)}
