"""What the normalizations next to the inputs of a trained model tell about the samples that it was trained on.

The moving mean and variance of a BatchNormalization, and the statistics of a Normalization, are those of the values
that it read in training. The first one behind an input, whatever lies between, shows whether other samples look alike.
"""

from dataclasses import dataclass, replace

import keras
import numpy as np

from tfptq.graph.channel_affine import channel_affine
from tfptq.graph.flat_graph import Call, FlatGraph, Unit, Value, values_in
from tfptq.graph.read_graph import input_names, read_graph
from tfptq.graph.rebuild import build_model


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """Statistics of the values that a normalization read in training.

    Attributes:
        input: name of the input of the model that these values are computed from.
        layer: name of the normalization.
        mean: float64 ``[C]``.
        variance: float64 ``[C]``.
        epsilon: what the layer adds to a variance: channels that vary by less count for nothing.
        axis: channel axis of the values.
        model: gives these values for the inputs of the model.
    """

    input: str
    layer: str
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float
    axis: int
    model: keras.Model


def input_statistics(model: keras.Model) -> list[InputStatistics]:
    """Statistics behind each float input of a built model that has some; those of layers never trained are none."""
    graph = read_graph(model)
    pairs = zip(input_names(model), values_in(graph.inputs), strict=True)
    found = [_behind(graph, name, value) for name, value in pairs if value.dtype == "float32"]
    return [each for each in found if each is not None]


def _behind(graph: FlatGraph, name: str, value: Value) -> InputStatistics | None:
    derived = {value}
    for call in graph.calls:
        if not call.inputs or not derived.issuperset(call.inputs):
            continue
        known = _statistics(call)
        if known is not None:
            axis, mean, variance, epsilon = known
            trained = np.any(mean) or np.any(variance != 1.0)
            up_to = _model_up_to(graph, call.inputs[0])
            return InputStatistics(name, call.unit.name, mean, variance, epsilon, axis, up_to) if trained else None
        derived.update(call.outputs)
    return None


def _statistics(call: Call) -> tuple[int, np.ndarray, np.ndarray, float] | None:
    """(channel axis, mean, variance, epsilon) of a normalization of channels; None for other calls."""
    unit = call.unit
    if issubclass(unit.kind, keras.layers.BatchNormalization):
        mean, variance = (unit.weight(f"moving_{name}") for name in ("mean", "variance"))
        axis, epsilon = unit.config["axis"], unit.config["epsilon"]
    elif issubclass(unit.kind, keras.layers.Normalization) and not unit.config["invert"]:
        mean, variance = (_of_normalization(unit, name) for name in ("mean", "variance"))
        axis, epsilon = unit.config["axis"], keras.config.epsilon()
    else:
        return None
    axes = np.atleast_1d(axis if axis is not None else ())
    if mean is None or variance is None or len(axes) != 1 or mean.size != variance.size:
        return None
    flat = (np.asarray(values, np.float64).reshape(-1) for values in (mean, variance))
    return int(axes[0]), *flat, epsilon


def _of_normalization(unit: Unit, name: str) -> np.ndarray | None:
    """A statistic that the layer was given, or that it adapted to."""
    weight, given = unit.weight(name), unit.config[name]
    return weight if given is None else np.asarray(given)


def _model_up_to(graph: FlatGraph, value: Value) -> keras.Model:
    """The part of a model that computes a value."""
    needed, calls = {value}, []
    for call in reversed(graph.calls):
        if not needed.isdisjoint(call.outputs):
            calls.append(call)
            needed.update(call.inputs)
    return build_model(replace(graph, outputs=[value], calls=tuple(reversed(calls))))


def input_factors(model: keras.Model) -> dict[str, float]:
    """Name of each float input that constants multiply at once (``Rescaling``, ``x / 127.5 - 1``) -> their product."""
    graph = read_graph(model)
    pairs = zip(input_names(model), values_in(graph.inputs), strict=True)
    factors = {name: _factor(graph, value) for name, value in pairs if value.dtype == "float32"}
    return {name: factor for name, factor in factors.items() if factor not in (0.0, 1.0)}


def _factor(graph: FlatGraph, value: Value) -> float:
    factor, call = 1.0, graph.only_user(value)
    while call is not None:
        affine = channel_affine(call)
        if affine is None:
            break
        factor *= float(np.median(np.abs(affine.scale)))
        call = graph.only_user(call.output)
    return factor
