"""Measure how far two float models are apart, and name the layer where they part.

The difference of an output is ``max |a - b|``, relative to the range ``max a - min a`` over the batch. A batch is
{input name: array}, or arrays in the structure of the model's inputs.

The layer is found without knowing how the graph was rewritten: a layer of the new model is *confirmed* when some layer
of the original yields the same values in any order (so that permuted channels count as equal). The first layer in the
graph that is not confirmed, and from which no confirmed layer can be reached, is where the models part.

A deep network may amplify the rounding of float32 itself beyond any fixed tolerance. Where a difference is too large,
the tolerance therefore grows to a multiple of what the network makes of inputs that are rounded otherwise.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from tfptq.base.text import counted
from tfptq.data.errors import blaming_samples
from tfptq.graph.flat_graph import FlatGraph, Value
from tfptq.graph.rebuild import build_model, graph_of, input_names, read_graph

#: Largest difference of an output, relative to its range, that two models may have which compute the same: many times
#: what float32 rounding makes of it in most networks, and a twentieth of half a step of an 8-bit grid.
TOLERANCE = 1e-4
#: A difference may be so many times the network's own rounding noise, up to a share of the range: half a step
#: of an 8-bit grid.
_NOISE_FACTOR, _LARGEST_TOLERANCE = 8.0, 2e-3
#: Samples on which the steps after the first are checked: one that changes what a network computes seldom spares any.
_FEW_SAMPLES = 8
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
    if not max(differences.values()) <= tolerance:
        tolerance = noise_tolerance(float32_run(original), batch, tolerance)
    broken = {name: value for name, value in differences.items() if not value <= tolerance}
    if broken:
        listed = ", ".join(f"{name!r} by {value:.3g}" for name, value in broken.items())
        layer = first_difference(original, canonical, batch, tolerance)
        where = f"; the models part at layer {layer!r}" if layer else ""
        raise FloatEqualityError(
            f"the rewritten model differs from {original.name!r} in {listed} of the range of the output "
            f"(tolerance {tolerance:g}){where}. {ADVICE}"
        )
    return differences


def few_samples(batch: Mapping[str, np.ndarray], batch_size: int | None) -> dict[str, np.ndarray]:
    """The first samples of a batch; all for a model with a fixed ``batch_size``."""
    return {name: values[: batch_size or _FEW_SAMPLES] for name, values in batch.items()}


def noise_tolerance(run: Callable[[Any], list[np.ndarray]], batch: Any, tolerance: float) -> float:
    """``tolerance``, or more where one float32 rounding of each input moves the outputs of a model by more."""
    moved = keras.tree.map_structure(_rounded_otherwise, batch)
    noise = max(relative_difference(*pair) for pair in zip(run(batch), run(moved), strict=True))
    return max(tolerance, min(_NOISE_FACTOR * noise, _LARGEST_TOLERANCE))


def float32_run(model: keras.Model) -> Callable[[Any], list[np.ndarray]]:
    """A function from a batch to the outputs of a model in float32."""
    return partial(model_outputs, _float32_reference(model))


def _rounded_otherwise(values: np.ndarray) -> np.ndarray:
    """Every other value one float32 number up, the others down."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    towards = np.where(np.arange(values.size) % 2, np.inf, -np.inf).reshape(values.shape)
    return np.nextafter(values, towards.astype(values.dtype))


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


def _unique_names(model: keras.Model) -> list[str]:
    """Names of the outputs; repeated ones are numbered."""
    names = graph_of(model).output_names
    return [name if names.count(name) == 1 else f"{name}:{index}" for index, name in enumerate(names)]
