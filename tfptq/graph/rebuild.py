"""From a ``FlatGraph`` to a Keras model; ``read_graph`` made it of one.

``build_model`` makes fresh Keras layers from the configs, calls them in order, and sets their weights. Inputs keep
their names, and the structures of inputs and outputs stay.
"""

import contextlib
import copy
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras.src.ops.core import Cast  # Keras exports no public name for the class behind keras.ops.cast.

from tfptq.base.text import unique_name
from tfptq.graph.flat_graph import FlatGraph, Unit, map_values, values_in
from tfptq.graph.read_graph import UnknownGraphError, layers_inside

#: How Keras names a class or function that it does not know.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown [a-z ]+:|Could not interpret [a-z ]+identifier:) '?([\w>.]+)"
)


def build_model(graph: FlatGraph) -> keras.Model:
    """A flat functional model with fresh layers and the weights of the graph."""
    layers = [keras.layers.InputLayer.from_config(dict(config)) for config in graph.input_configs]
    tensors = {value: layer.output for value, layer in zip(values_in(graph.inputs), layers, strict=True)}
    operations = {unit: instantiate(unit) for unit in graph.units}
    densifier = _Densifier(unit.name for unit in graph.units)
    for call in graph.calls:
        arguments = map_values(tensors.__getitem__, (call.args, dict(call.kwargs)))
        args, kwargs = densifier.arguments(operations[call.unit], arguments)
        results = keras.tree.flatten(_called(call.unit, operations[call.unit], args, kwargs))
        tensors.update(zip(call.outputs, results, strict=True))
    for unit, operation in operations.items():
        _set_weights(unit, operation)
    inputs, outputs = map_values(tensors.__getitem__, (graph.inputs, graph.outputs))
    with _recursion_for(len(graph.calls)):
        return keras.Model(inputs, outputs, name=graph.name)


@contextlib.contextmanager
def _recursion_for(calls: int) -> Iterator[None]:
    """Room for Keras, which walks back from the outputs of a model by one level of recursion for each call."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + calls)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class _Densifier:
    """Gives layers that Keras traces no tensor that it takes for a sparse one.

    Keras takes the product of a tensor and a number for sparse. Layers of a nested model never see that, as it is built
    on inputs of its own; in a flat model they would be traced on a ``SparseTensor``, which many cannot read. A cast,
    which computes nothing, ends it, also in files of the model.
    """

    def __init__(self, names: Iterable[str]):
        self._names, self._dense = set(names), dict[int, keras.KerasTensor]()

    def arguments(self, operation: keras.Operation, arguments: Any) -> Any:
        """The arguments of a call, with casts where they are needed."""
        traced = isinstance(operation, keras.Layer) and getattr(operation.compute_output_shape, "_is_default", False)
        return keras.tree.map_structure(self._cast, arguments) if traced else arguments

    def _cast(self, leaf: Any) -> Any:
        if not isinstance(leaf, keras.KerasTensor) or not leaf.sparse:
            return leaf
        if id(leaf) not in self._dense:
            cast = Cast(leaf.dtype)
            cast.name = unique_name("dense", self._names)
            self._names.add(cast.name)
            self._dense[id(leaf)] = cast(leaf)
        return self._dense[id(leaf)]


def _called(unit: Unit, operation: keras.Operation, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a fresh layer returns.

    Raises:
        UnknownGraphError: a custom layer needs more than its config gave it, or Keras cannot call an operation again.
    """
    try:
        return operation(*args, **kwargs)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        if unit.operation is not None:
            raise UnknownGraphError(f"the operation {unit.name!r} cannot be called a second time: {error}") from error
        if unit.kind.__module__.startswith("keras."):
            raise
        raise UnknownGraphError(
            f"layer {unit.name!r} ({unit.kind.__name__}) does not run when it is made from its config: {error}; its "
            "get_config() must return all arguments of its __init__()"
        ) from error


def instantiate(unit: Unit) -> keras.Operation:
    """A fresh layer or operation, not yet called and without its weights.

    Raises:
        UnknownGraphError: its config is not enough.
    """
    if unit.operation is not None:
        operation = copy.copy(unit.operation)  # Stateless, so only its name and its records of calls are renewed.
        operation.name, operation._inbound_nodes, operation._outbound_nodes = unit.name, [], []
        return operation
    if issubclass(unit.kind, keras.layers.Lambda):
        return unit.kind(**unit.config)
    try:
        return unit.kind.from_config(_without_initializers(unit))
    except (TypeError, NotImplementedError, ValueError) as error:
        of_keras = unit.kind.__module__.startswith("keras.")
        if isinstance(error, ValueError) and of_keras and unit.kind is not keras.layers.TFSMLayer:
            raise
        unknown = unknown_class(error)
        if unknown:
            raise UnknownGraphError(
                f"layer {unit.name!r} ({unit.kind.__name__}) holds the custom class or function {unknown!r}, which "
                "Keras does not know and so cannot copy; register it with keras.saving.register_keras_serializable, or "
                f"work inside of `with tfptq.layers.quantize_scope({{{unknown!r}: ...}}):`"
            ) from error
        raise UnknownGraphError(
            f"layer {unit.name!r} ({unit.kind.__name__}) cannot be made from its config: {error}; its get_config() "
            "must return all arguments of its __init__()"
        ) from error


def _without_initializers(unit: Unit) -> dict[str, Any]:
    """The config of a layer, which gets its weights at once: initializers cost time, and some cannot be made again."""
    config = copy.deepcopy(dict(unit.config))
    if unit.kind.__module__.startswith("keras."):
        config |= {key: "zeros" for key, value in config.items() if key.endswith("_initializer") and value}
    return config


def unknown_class(error: Exception) -> str | None:
    """The class or function that Keras asks for in an error of deserialization; None in any other error."""
    found = _UNKNOWN.search(str(error))
    return found[1] if found else None


def _set_weights(unit: Unit, operation: keras.Operation) -> None:
    if not unit.weights:
        return
    inside = layers_inside(operation)
    if len(inside) == len(unit.inner):
        for layer, name in zip(inside, unit.inner, strict=True):
            layer.name = name
    try:
        operation.set_weights([array for _, array in unit.weights])
    except ValueError as error:
        raise UnknownGraphError(
            f"layer {unit.name!r} ({unit.kind.__name__}) has other weights when it is made from its config: {error}; "
            "its get_config() must return all arguments of its __init__()"
        ) from error
    if isinstance(operation, (keras.layers.Normalization, keras.layers.Discretization)):
        operation.finalize_state()  # They compute with constants that they derive from their weights.
