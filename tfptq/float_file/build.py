"""Make the float file of a Keras model: convert it, find its weights in the file, and check what the file computes."""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import keras
import numpy as np

from tfptq.float_file.convert import convert_float
from tfptq.float_file.equal_weights import equal_weights, perturb, restore
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.input_factors import separate_input_factors
from tfptq.float_file.kernel import KernelId
from tfptq.float_file.matching import WeightFinder, find_kernels
from tfptq.float_file.recurrent_layers import never
from tfptq.float_file.simplify import simplify
from tfptq.graph.float_equality import (
    ADVICE,
    TOLERANCE,
    FloatEqualityError,
    model_outputs,
    relative_difference,
    tolerances,
)
from tfptq.graph.read_graph import graph_of
from tfptq.layers import weight_specs
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner

#: What the converter makes of the name of an input, and what TensorFlow replaces in names.
_TENSOR_NAME, _NO_IDENTIFIER = re.compile(r"^(?:serving_default_)?(.*?)(?::0)?$"), re.compile(r"[^A-Za-z0-9]+")


def make_float_file(
    model: keras.Model,
    weights: Mapping[KernelId, np.ndarray],
    unfolded: Collection[KernelId] | None = None,
    single: bool = False,
    steps_of: Callable[[str], int] = never,
) -> FloatFile:
    """Convert a canonical Keras model and find its weights ``[O, I, T]`` in the file. The model stays as it was.

    Weights with equal values are perturbed before conversion (``tfptq.float_file.equal_weights``), so that each layer
    has a kernel of its own; a layer that is called several times has one kernel for all calls.

    Args:
        unfolded: the weights that factors of their inputs are taken out of (``tfptq.float_file.input_factors``); all by
            default. It costs an operator, and lets what a config says of the layer reach its weights.
        single: whether the file shall take one sample at a time, whatever the batch of the model is.
        steps_of: name of a recurrent layer -> length of sequences up to which it is unrolled.

    Raises:
        ValueError: the converter refuses the model, or renames its inputs beyond recognition; or the model changes
            variables when it predicts.
    """
    others = _other_weights(model, weights)
    equal = equal_weights(weights, others)
    unfolded = set(weights if unfolded is None else unfolded)
    convert = partial(convert_float, model, single, steps_of)
    float_file = _convert(model, weights, equal, others, unfolded, convert)
    calls = _numbers_of_calls(model)
    uses = {kernel.id: len(kernel.uses) for kernel in float_file.kernels if kernel.id.layer is not None}
    # A constant of the model, or a layer that tfptq does not know, may have the values of a weight as well.
    foreign = {key for key, count in uses.items() if count > calls[key.owner]} - equal
    # What the converter makes of a weight may depend on small differences: one that is not found keeps its values.
    lost = equal - set(uses)
    if not foreign and not lost:
        return float_file
    findable = {key: view for key, view in weights.items() if key not in lost}
    others += [weights[key] for key in lost]
    return _convert(model, findable, (equal | foreign) - lost, others, unfolded, convert)


def _convert(
    model: keras.Model,
    weights: Mapping[KernelId, np.ndarray],
    keys: set[KernelId],
    others: list[np.ndarray],
    unfolded: set[KernelId],
    convert: Callable[[], bytes],
) -> FloatFile:
    """The float file that ``convert`` makes, with stand-ins for some weights."""
    perturbed = perturb(weights, keys, others)
    with _replaced(model, perturbed):
        editable = TFLiteModel(convert())
    _check_variables(editable, model)
    simplify(editable)
    views = {**weights, **perturbed}
    finder = WeightFinder(views)
    separate_input_factors(editable, finder, {key: view for key, view in views.items() if key in unfolded})
    kernels = find_kernels(editable, finder, weights, [layer.name for layer in model.layers])
    restore(editable, kernels, keys)
    inputs = _input_tensors(editable, [tensor.name for tensor in model.inputs])
    return FloatFile(editable.to_bytes(), editable, kernels, inputs, tuple(editable.subgraph.outputs))


def _check_variables(editable: TFLiteModel, model: keras.Model) -> None:
    """Refuse a file that keeps values between calls: no quantized file could, whatever its samples were before.

    Raises:
        ValueError: naming the layers where Keras knows them.
    """
    if not any(editable.operator_name(operator) == "ASSIGN_VARIABLE" for operator in editable.operators):
        return
    stateful = [repr(layer.name) for layer in model.layers if getattr(layer, "stateful", False)]
    advice = f"build {', '.join(stateful)} with stateful=False" if stateful else "take them out of its call()"
    raise ValueError(
        f"a layer of {model.name!r} changes variables when the model predicts, so that a result depends on the calls "
        f"before; {advice}, and let the model take and return the state instead"
    )


@contextlib.contextmanager
def _replaced(model: keras.Model, views: Mapping[KernelId, np.ndarray]) -> Iterator[None]:
    """Inside this context some weights of a model have other values."""
    layers = {layer for layer, _ in views}
    specs = {(name, spec.name): spec for name in layers for spec in weight_specs(model.get_layer(name))}
    before = {key: keras.ops.convert_to_numpy(specs[key].variable).copy() for key in views}
    try:
        for key, view in views.items():
            specs[key].variable.assign(specs[key].view.from_view(view))
        yield
    finally:
        for key, values in before.items():
            specs[key].variable.assign(values)


def _other_weights(model: keras.Model, weights: Mapping[KernelId, np.ndarray]) -> list[np.ndarray]:
    """The kernels of layers whose weights are not among ``weights``."""
    known = {layer for layer, _ in weights}
    return [
        keras.ops.convert_to_numpy(weight)
        for layer in model.layers
        if layer.name not in known
        for weight in layer.weights
        if len(weight.shape) >= 2 and keras.backend.is_float_dtype(weight.dtype)
    ]


def _numbers_of_calls(model: keras.Model) -> Counter[str]:
    """Name of a layer -> how often the model calls it."""
    return Counter(node.operation.name for nodes in graph_of(model)._nodes_by_depth.values() for node in nodes)


def check_float_file(
    float_file: FloatFile, model: keras.Model, batch: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> float:
    """Refuse a float file that does not compute what the Keras model does.

    Returns the largest difference over all outputs, relative to their ranges. ``tolerance`` is the largest that is let
    pass, unless rounding alone makes larger ones.

    Raises:
        FloatEqualityError: the outputs differ.
        ValueError: the runtime cannot run the float file.
    """

    def limits(differences: Sequence[tuple[int, float]]) -> list[float]:
        return tolerances(model, batch, [value for _, value in differences], tolerance)

    return check_outputs(float_file, model.name, model_outputs(model, batch), batch, limits)


def check_outputs(
    float_file: FloatFile,
    name: str,
    expected: Sequence[np.ndarray],
    batch: Mapping[str, np.ndarray],
    limits: Callable[[Sequence[tuple[int, float]]], Sequence[float]],
) -> float:
    """``check_float_file`` against outputs of any origin.

    Args:
        float_file: the file.
        name: name of what it was made of.
        expected: its outputs for the batch.
        batch: input name -> samples.
        limits: for each expected output, which one of the file it is and by how much it differs -> the differences
            that pass.
    """
    found = _run(float_file, name, batch)
    # The converter may order the outputs in its own way: each expected output must be one of those found.
    # (numpy's minimum and maximum keep NaN, so that it is refused.)
    table = np.array([[_difference(value, other) for other in found.values()] for value in expected])
    indexes, differences = list(found), table.min(axis=1).tolist()
    largest = float(np.max(differences))
    if np.isnan(largest) and all(np.isfinite(values).all() for values in expected):
        raise FloatEqualityError(
            f"the float .tflite of {name!r} gives NaN where the model gives numbers: a layer divides by 0 "
            "after conversion, as UnitNormalization does for a vector of zeros. Add a small number to what it reads"
        )
    matched = [(indexes[place], value) for place, value in zip(table.argmin(axis=1), differences, strict=True)]
    broken = [(value, limit) for value, limit in zip(differences, limits(matched), strict=True) if not value <= limit]
    if broken:
        value, limit = max(broken)  # the worst
        raise FloatEqualityError(
            f"the float .tflite of {name!r} differs from the model by {value:.3g} of the output's range (tolerance "
            f"{limit:.3g}); a layer computes something else after conversion. {ADVICE}"
        )
    return largest


def _run(float_file: FloatFile, name: str, batch: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """The float file's outputs; for the arguments and errors see ``check_float_file``."""
    try:
        runner = TensorRunner(float_file.data, float_file.outputs)
        return runner.values_in_parts(float_file.by_tensor_name(batch), float_file.batch_size)
    except RuntimeError as error:  # the converter wrote sizes down that a layer has for one batch only, or wrong ones
        reason = str(error).removeprefix("./").strip().rstrip(".")
        raise ValueError(
            f"LiteRT cannot run the file that the TFLite converter makes of the model {name!r}: {reason}. "
            "Replace the layer with this operation by others, or try fixed sizes: keras.Input(shape, batch_size=1)"
        ) from error


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    return relative_difference(expected, found) if expected.shape == found.shape else np.inf


def _input_tensors(model: TFLiteModel, names: list[str]) -> dict[str, int]:
    """Keras input name -> tensor index, by name: the converter puts the inputs into an order of its own.

    Raises:
        ValueError: the converter changed the names beyond recognition.
    """
    signatures = model.root.signatureDefs or []
    entries = {entry.name.decode(): entry.tensorIndex for entry in signatures[0].inputs} if signatures else {}
    if len(names) == 1 and len(model.subgraph.inputs) == 1:
        return {names[0]: model.subgraph.inputs[0]}
    # TensorFlow replaces what it does not take in a name; without a signature, tensors are serving_default_<name>:0.
    entries = entries or {_TENSOR_NAME.sub(r"\1", model.name(index)): index for index in model.subgraph.inputs}
    for key in (str, _plain):
        known = {key(name): index for name, index in entries.items()}
        wanted = [key(name) for name in names]
        if len(known) == len(entries) and sorted(wanted) == sorted(known):
            return {name: known[key(name)] for name in names}
    raise ValueError(
        f"the TFLite converter named the inputs {sorted(entries)}, which cannot be matched with the model's, "
        f"{sorted(names)}; give the inputs names of letters, digits and _ that differ in more than other characters"
    )


def _plain(name: str) -> str:
    return _NO_IDENTIFIER.sub("_", name).strip("_").lower()
