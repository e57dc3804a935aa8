"""Measure how far two float models are apart, and name the layer where they part.

The difference of an output is ``max |a - b|``, relative to the range ``max a - min a`` over the batch. A batch is
{input name: array}, or arrays in the structure of the model's inputs.

The layer is found without knowing how the graph was rewritten: a layer of the new model is *confirmed* when some layer
of the original yields the same values in any order (so that permuted channels count as equal). The first layer in the
graph that is not confirmed, and from which no confirmed layer can be reached, is where the models part.

A network may amplify the rounding of float32 itself beyond any fixed tolerance: a deep one, or one that subtracts
large, nearly equal values. Where a difference is too large, the tolerance of each output therefore grows to a multiple
of how far rounding alone moves it (``float_noise``).
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfptq.base.text import counted
from tfptq.data.errors import blaming_samples
from tfptq.graph.flat_graph import FlatGraph, Value
from tfptq.graph.float_noise import rounding_otherwise
from tfptq.graph.read_graph import graph_of, input_names, read_graph
from tfptq.graph.rebuild import build_model

#: Largest difference of an output, relative to its range, that two models may have which compute the same: many times
#: what float32 rounding makes of it in most networks, and a twentieth of half a step of an 8-bit grid.
TOLERANCE = 1e-4
#: A difference may be so many times the largest that rounding made in so many draws.
_NOISE_FACTOR, NOISE_DRAWS = 8.0, 4
#: Samples that models are compared on, and their input values where they are large: a step that changes what a network
#: computes seldom spares any of them, and Keras keeps all activations of a run.
_FEW_SAMPLES, _FEWEST_SAMPLES, _FEW_VALUES = 8, 2, 1 << 18
#: Steps of float32 at the largest value of an output that count as none.
_ROUNDINGS = 8

#: What to do about two models that part.
ADVICE = (
    "Typical causes: a layer that is random at inference (noise, dropout or sampling that ignores training=False), a "
    "custom layer that draws on other samples of the batch or keeps a state, a channel axis that a custom layer reads "
    "otherwise. Leave such a layer outside of the model, or make it a function of its input alone; if there is none, "
    "report a bug with the model"
)


class FloatEqualityError(ValueError):
    """A rewritten model does not compute what the original does."""


def largest_difference(original: keras.Model, changed: keras.Model, batch: Any) -> dict[str, float]:
    """Output name of ``original`` -> largest difference in ``changed`` in inference, relative to the output's range.

    A model that computes in another type than float32 is compared by its float32 copy.

    Raises:
        ValueError: the models have different numbers or shapes of outputs, or one that holds no values; or the
            original gives NaN or infinity.
    """
    names = _unique_names(original)
    expected = model_outputs(_float32_reference(original), batch)
    for name, array in zip(names, expected, strict=True):
        if not array.size:
            raise ValueError(
                f"output {name!r} of the model {original.name!r} has the shape {array.shape} and holds no values; "
                "build the model again without it, keras.Model(model.inputs, [...]) with the other outputs"
            )
        if not np.isfinite(array).all():
            _refuse_not_finite(original, name, array, batch)
    found = model_outputs(changed, batch)
    if [array.shape for array in expected] != [array.shape for array in found]:
        raise ValueError(
            f"the outputs of {original.name!r} and {changed.name!r} have different shapes: "
            f"{[array.shape for array in expected]} and {[array.shape for array in found]}"
        )
    return {name: relative_difference(*pair) for name, *pair in zip(names, expected, found, strict=True)}


def _refuse_not_finite(model: keras.Model, output: str, values: np.ndarray, batch: Any) -> None:
    """Nothing can be compared with NaN; the cause is the model or the samples, not what was rewritten."""
    graph = read_graph(model)
    pairs = zip(graph.calls, _first_outputs(graph, batch), strict=True)
    first = next((call.unit for call, found in pairs if not np.isfinite(found).all()), None)
    where = f" The first layer whose output is not finite is {first.name!r} ({first.kind.__name__})." if first else ""
    bad = int(values.size - np.isfinite(values).sum())
    raise ValueError(
        f"{bad} of {counted(values.size, 'value')} in the output {output!r} of the model {model.name!r} are NaN or "
        f"infinite on the calibration samples, before anything is rewritten.{where} Look at the weights there (a "
        "negative moving_variance, numbers near the largest float32), at what is computed of the inputs (a logarithm "
        "of 0, a division by 0), and at whether the samples are preprocessed as for model.predict"
    )


def check_float_equal(
    original: keras.Model, canonical: keras.Model, batch: Any, tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Refuse a rewritten model that does not compute what the original does; returns the differences.

    ``tolerance`` is the largest relative difference that passes, unless rounding alone makes larger ones.

    Raises:
        FloatEqualityError: naming the outputs, the differences, and the layer where the models part if it is found.
    """
    differences = largest_difference(original, canonical, batch)
    limits = tolerances(original, batch, list(differences.values()), tolerance)
    pairs = zip(differences.items(), limits, strict=True)
    broken = {name: (value, limit) for (name, value), limit in pairs if not value <= limit}
    if broken:
        parts = (f"{name!r} by {value:.3g} (tolerance {limit:.3g})" for name, (value, limit) in broken.items())
        layer = first_difference(original, canonical, batch, max(limits))
        where = f"; the models part at layer {layer!r}" if layer else ""
        raise FloatEqualityError(
            f"the rewritten model differs from {original.name!r} in {', '.join(parts)}, relative to the range of the "
            f"output{where}. {ADVICE}"
        )
    return differences


def few_samples(batch: Mapping[str, np.ndarray], batch_size: int | None) -> dict[str, np.ndarray]:
    """The first samples of a batch; all for a model with a fixed ``batch_size``."""
    values = sum(math.prod(array.shape[1:]) for array in batch.values())
    few = min(max(_FEW_VALUES // max(values, 1), _FEWEST_SAMPLES), _FEW_SAMPLES)
    return {name: array[: batch_size or few] for name, array in batch.items()}


def tolerances(
    model: keras.Model, batch: Any, differences: Sequence[float], tolerance: float = TOLERANCE
) -> list[float]:
    """For each output of a model, the difference that it may have.

    It is ``tolerance``, or more where one of the ``differences`` that were found is larger and float32 rounding moves
    the output by more.
    """
    if all(value <= tolerance for value in differences):
        return [tolerance] * len(differences)
    products = max((math.prod(weight.shape[:-1]) for weight in model.weights if len(weight.shape) >= 2), default=1)
    return limits_of_noise(rounding_noise(model, batch), products, tolerance)


def limits_of_noise(noise: Iterable[float], products: int, tolerance: float) -> list[float]:
    """Largest difference that passes, for each output that rounding moves by ``noise``.

    ``products`` is the largest number of them that a kernel adds up.
    """
    # Kernels may add up one product after the other: errors then grow with the root of their number, while values that
    # are rounded otherwise before they are added up make errors as large as one of them.
    factor = max(_NOISE_FACTOR, 2.0 * math.sqrt(products))
    return [max(tolerance, factor * each) for each in noise]


def rounding_noise(model: keras.Model, batch: Any) -> list[float]:
    """How far float32 rounding moves each output of a model, relative to its range.

    0 for a model that is random or keeps a state: its differences come from that.
    """
    reference = _float32_reference(model)
    expected, again = model_outputs(reference, batch), model_outputs(reference, batch)
    noise = np.zeros(len(expected))
    if any(relative_difference(*pair) > TOLERANCE for pair in zip(expected, again, strict=True)):
        return noise.tolist()
    moving = rounding_otherwise(model)
    for _ in range(NOISE_DRAWS):
        found = model_outputs(moving, batch)
        # A value that rounding moves out of a domain, such as that of arccos, says nothing: fmax leaves out NaN.
        noise = np.fmax(noise, [relative_difference(*pair) for pair in zip(expected, found, strict=True)])
    return noise.tolist()


def first_difference(
    original: keras.Model, changed: keras.Model, batch: Any, tolerance: float = TOLERANCE
) -> str | None:
    """Name of the first layer of ``changed`` after which nothing equals a layer of ``original``, or None.

    Outputs of two layers are equal up to a relative difference of ``tolerance``.
    """
    known = [np.sort(array, axis=None) for array in _first_outputs(read_graph(original), batch)]
    graph = read_graph(changed)
    found = [np.sort(array, axis=None) for array in _first_outputs(graph, batch)]
    confirmed = [any(_same(values, other, tolerance) for other in known) for values in found]
    reaching: set[Value] = set()  # Values from which a confirmed layer can be reached.
    first = None
    for call, equal in zip(reversed(graph.calls), reversed(confirmed), strict=True):
        if equal or reaching.intersection(call.outputs):
            reaching.update(call.inputs)
        else:
            first = call.unit.name
    return first


def _first_outputs(graph: FlatGraph, batch: Any) -> list[np.ndarray]:
    """First output of every call, in the order of the calls."""
    first_outputs = [call.outputs[0] for call in graph.calls]
    observed = FlatGraph(graph.name, graph.input_configs, graph.inputs, first_outputs, graph.calls)
    return model_outputs(build_model(observed), batch)


def _same(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return found.shape == expected.shape and relative_difference(expected, found) <= tolerance


def relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest absolute difference of two arrays of one shape, relative to the range of ``expected``.

    What float32 cannot tell apart at the size of the values is no difference: pressures of 101,325 Pa, say, come in
    steps of 0.008, and a few roundings on the way are a part of their range.
    """
    if not expected.size:
        return 0.0
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    spread = expected.max() - expected.min()
    # A constant output has no range; compare to its size then.
    size = np.abs(expected).max()
    beyond = np.maximum(np.abs(expected - found).max() - _ROUNDINGS * np.finfo(np.float32).eps * size, 0.0)
    return float(beyond / (spread or size or 1.0))


def _float32_reference(model: keras.Model) -> keras.Model:
    float32 = all(layer.compute_dtype == "float32" for layer in model._flatten_layers() if layer is not model)
    return model if float32 else build_model(read_graph(model))


def model_outputs(model: keras.Model, batch: Any) -> list[np.ndarray]:
    """Outputs of a model in inference, flat; raises a DataError if the model fails on the batch."""
    function = graph_of(model)
    names = input_names(model)
    if isinstance(batch, Mapping) and set(batch) == set(names):
        batch = keras.tree.pack_sequence_as(function._inputs_struct, [batch[name] for name in names])
    with blaming_samples():
        return [keras.ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(model(batch, training=False))]


@contextlib.contextmanager
def fresh_states(model: keras.Model) -> Iterator[None]:
    """Inside this context the stateful recurrent layers of a model start from zeros; then they are as before."""
    layers = [layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
    variables = [state for layer in layers for state in keras.tree.flatten(getattr(layer, "states", None) or [])]
    before = [keras.ops.convert_to_numpy(state) for state in variables]
    try:
        for state, values in zip(variables, before, strict=True):
            state.assign(np.zeros_like(values))
        yield
    finally:
        for state, values in zip(variables, before, strict=True):
            state.assign(values)


def _unique_names(model: keras.Model) -> list[str]:
    """Names of the outputs; repeated ones are numbered."""
    names = graph_of(model).output_names
    return [name if names.count(name) == 1 else f"{name}:{index}" for index, name in enumerate(names)]
