"""Normalization of inputs that must not be folded into the first layer.

Folded, a ``Normalization`` of table columns costs nothing, but the first layer then reads the columns as they are, on
one grid: next to a column in thousands, one in hundredths has a single code. Such a normalization stays, in float, in
front of the grid. However it was written (BatchNormalization, ``(x - mean) / deviation``), it becomes a
``Normalization`` layer, which the converter does not fuse into the first layer.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.base.text import unique_name
from tfptq.core.affine import MOST_COARSENING
from tfptq.graph.channel_affine import channel_affine
from tfptq.graph.flat_graph import Call, FlatGraph, Unit, values_in
from tfptq.graph.read_graph import input_names, read_graph
from tfptq.graph.simplify import full_config, remove_identities


def input_normalizations_to_keep(model: keras.Model, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, str]:
    """Find normalizations of inputs whose channels differ too much for one grid.

    Args:
        model: built Keras model.
        batches: input name -> samples; not read where nothing normalizes an input.

    Returns:
        Name of a layer or operation that scales and shifts the channels, for ``canonicalise`` -> name of the input.
    """
    graph = remove_identities(read_graph(model))
    scalings: dict[str, list[_Scaling]] = {}
    for name, value in zip(input_names(model), values_in(graph.inputs), strict=True):
        found = [_scaling(graph, call) for call in graph.users(value)] if value.dtype == "float32" else []
        scalings[name] = [scaling for scaling in found if scaling is not None]
    names = [name for name, found in scalings.items() if found]
    limits = _channel_limits(names, batches) if names else {}
    return {
        call.unit.name: name
        for name, (low, high) in limits.items()
        for scaling in scalings[name]
        if scaling.coarsening(low, high) > MOST_COARSENING
        for call in scaling.calls
    }


def _channel_limits(
    names: list[str], batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Input name -> smallest and largest value of each channel, both ``[C]``."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for batch in batches:
        for name in names:
            values = batch[name].astype(np.float64)
            rows = values.reshape(-1, values.shape[-1])
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return found


def merge_input_normalizations(graph: FlatGraph, names: Collection[str]) -> tuple[FlatGraph, frozenset[str]]:
    """Replace each chain that ``input_normalizations_to_keep`` found by one ``Normalization``.

    Returns:
        The graph, and the names of these layers: that of the first call, numbered where its layer is called again.
    """
    made, taken = [], {unit.name for unit in graph.units}
    for value in values_in(graph.inputs):
        for call in graph.users(value):
            scaling = _scaling(graph, call) if call.unit.name in names else None
            if scaling is not None:
                name = call.unit.name if graph.called_once(call) else unique_name(call.unit.name, taken)
                made.append(name)
                taken.add(name)
                joined = Call(scaling.layer(name), (value,), {}, scaling.calls[-1].outputs)
                graph = graph.replace_calls({**dict.fromkeys(scaling.calls, ()), call: [joined]})
    return graph, frozenset(made)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """Calls that scale and shift the last axis, one after the other: ``scale * x + shift`` with positive scales."""

    calls: tuple[Call, ...]
    scale: np.ndarray
    shift: np.ndarray

    def coarsening(self, low: np.ndarray, high: np.ndarray) -> float:
        """How many times coarser the worst channel gets on the grid of the input than on that of the result.

        ``low`` and ``high`` are the smallest and largest value of each channel, ``[C]``.
        """
        result = _span(low * self.scale + self.shift, high * self.scale + self.shift)
        return float(self.scale.max() * _span(low, high) / max(result, np.finfo(np.float32).tiny))

    @property
    def fits_a_layer(self) -> bool:
        """Whether a ``Normalization`` computes it: that replaces a deviation below an epsilon by the epsilon."""
        (source,) = self.calls[0].inputs
        if source.shape[-1] is None or not np.all((self.scale > 0.0) & (self.scale * keras.config.epsilon() < 1.0)):
            return False
        limit = np.finfo(np.float32).max
        return bool(np.all(1.0 / np.square(self.scale) < limit) and np.all(np.abs(self.shift / self.scale) < limit))

    def layer(self, name: str) -> Unit:
        """The same as one layer."""
        (source,) = self.calls[0].inputs
        mean, variance = -self.shift / self.scale, 1.0 / np.square(self.scale)
        channels = [np.broadcast_to(values, source.channels).tolist() for values in (mean, variance)]
        config = {"name": name, "dtype": "float32", "axis": -1, "mean": channels[0], "variance": channels[1]}
        return Unit(name, keras.layers.Normalization, full_config(keras.layers.Normalization, config))


def _scaling(graph: FlatGraph, call: Call | None) -> _Scaling | None:
    """The chain that starts with a call, if there is one that a ``Normalization`` computes."""
    calls, scale, shift = [], np.ones(()), np.zeros(())
    while call is not None:
        affine = channel_affine(call)
        if affine is None or affine.axis not in (None, len(affine.source.shape) - 1):
            break
        calls.append(call)
        scale, shift = np.asarray(scale * affine.scale), np.asarray(shift * affine.scale + affine.shift)
        call = graph.only_user(call.output)
    scaling = _Scaling(tuple(calls), scale, shift)
    return scaling if calls and scaling.fits_a_layer else None


def _span(low: np.ndarray, high: np.ndarray) -> float:
    return float(max(high.max(), 0.0) - min(low.min(), 0.0))
