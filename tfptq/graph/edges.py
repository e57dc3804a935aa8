"""The layers at the edges of a model: those next to its inputs and its outputs.

In a chain they are the first and the last layer. A model with branches has one or more for each input and each output.
A layer is next to the inputs if one of the tensors it reads was made from inputs alone, by operations without weights.
Where paths meet, as in ``x + conv(x)``, the outcome has passed a layer: else a stream of residual blocks that starts at
an input would put a layer of each block at the edge. An input that no layer reads in this way counts for the first of
the layers that it reaches beside others, so that each input has a layer. Outputs are the same thing backwards.
"""

from collections.abc import Collection, Iterable

import keras

from tfptq.graph.flat_graph import Value, values_in
from tfptq.graph.rebuild import read_graph

_Step = tuple[str, Iterable[Value], Iterable[Value]]


def edge_layers(model: keras.Model, names: Collection[str]) -> list[str]:
    """Names of the layers next to the inputs or the outputs of a model.

    Args:
        model: flat Keras model (``tfptq.graph.canonicalise``); it is not changed.
        names: the layers that count, in the order of the answer; all others are operations on the way.

    Raises:
        ValueError: the model has no known graph.
    """
    graph = read_graph(model)
    forward = [(call.unit.name, call.inputs, call.outputs) for call in graph.calls]
    backward = [(call.unit.name, call.outputs, call.inputs) for call in reversed(graph.calls)]
    found = _next_to(values_in(graph.inputs), forward, names) | _next_to(values_in(graph.outputs), backward, names)
    return [name for name in names if name in found]


def _next_to(ends: Iterable[Value], steps: Iterable[_Step], names: Collection[str]) -> set[str]:
    """The layers next to ``ends``; ``steps`` are (name, values on the side of the ends, values on the far side)."""
    reached_from: dict[Value, set[Value]] = {value: {value} for value in ends}  # without passing a layer
    beyond: set[Value] = set()  # values that are, on one path at least, on the far side of a layer
    direct: set[str] = set()
    candidates: dict[Value, list[str]] = {value: [] for value in ends}
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
