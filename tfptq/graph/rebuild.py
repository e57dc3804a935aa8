"""From a Keras model to a ``FlatGraph`` and back.

``read_graph`` walks the recorded calls of a Functional or Sequential model and inlines nested models, so that the
result has layers and operations only. A nested layer keeps its name when no other has it; otherwise it takes the name
of its model as a prefix (Keras forbids ``/`` in names). All floating point computation becomes float32.

``build_model`` makes fresh Keras layers from the configs, calls them in order, and sets their weights. The user's
layers are only read. Both ways an input keeps its name, and the structures of inputs and outputs stay. ``training``
arguments are dropped: Keras overrides them in inference anyhow.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional  # Keras exports no public name for it.
from keras.src.ops.core import Cast  # Nor for the class behind keras.ops.cast.

from tfptq.base.text import unique_name
from tfptq.graph.flat_graph import Call, FlatGraph, Unit, Value, map_values, values_in

#: How Keras names a class or function that it does not know.
_UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown [a-z ]+:|Could not interpret [a-z ]+identifier:) '?([\w>.]+)"
)
_FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
_FLOAT_POLICIES = (*_FLOAT_TYPES, "mixed_float16", "mixed_bfloat16")


class UnknownGraphError(ValueError):
    """A model whose graph is not known, or whose layers cannot be made anew."""


def graph_of(model: keras.Model) -> keras.Function:
    """The recorded graph of a model; an ``UnknownGraphError`` if it is subclassed, or not built yet."""
    function = _inner_graph(model)
    if function is None:
        raise ValueError(f"{model!r} is not a Keras model")
    return function


def _inner_graph(operation: keras.Operation) -> keras.Function | None:
    """The recorded graph inside a model; None for plain layers and operations."""
    if isinstance(operation, keras.Sequential):
        if operation._functional is None:
            raise UnknownGraphError(
                f"the Sequential model {operation.name!r} has no graph yet: give it a keras.Input as first layer, or "
                "call build(input_shape); layers that only run eagerly are not supported"
            )
        return operation._functional
    if isinstance(operation, keras.Function):
        if type(operation).call in (keras.Function.call, Functional.call):
            return operation
    elif not isinstance(operation, keras.Model):
        return None
    raise UnknownGraphError(
        f"{operation.name!r} ({type(operation).__name__}) is a subclassed model with its own call(); its graph is not "
        "known. Rebuild it with the functional API, keras.Model(inputs, outputs)"
    )


def input_names(model: keras.Model) -> list[str]:
    """Names of the input layers, in the order of the inputs.

    The tensor of an input layer that the user did not name is called differently (``keras_tensor_7``); the canonical
    model calls both like the layer.
    """
    return [tensor._keras_history.operation.name for tensor in graph_of(model).inputs]


def read_graph(model: keras.Model) -> FlatGraph:
    """Read a built model into a flat graph; an ``UnknownGraphError`` names what has no known graph or no config."""
    function = graph_of(model)
    reader = _Reader(function)
    inputs = [Value(tuple(tensor.shape), _float32_name(tensor.dtype)) for tensor in function.inputs]
    outputs = reader.inline(function, inputs, prefix="")
    return FlatGraph(
        name=model.name,
        input_configs=tuple(_input_config(tensor, isinstance(model, keras.Sequential)) for tensor in function.inputs),
        inputs=keras.tree.pack_sequence_as(function._inputs_struct, inputs),
        outputs=outputs,
        calls=tuple(reader.calls),
    )


class _Reader:
    """State of one walk: the calls so far, and one unit for each Keras operation."""

    def __init__(self, function: keras.Function):
        self.calls: list[Call] = []
        self._units: dict[int, Unit] = {}
        self._top = {id(operation) for operation in function.operations}
        self._names = {operation.name for operation in function.operations}

    def inline(self, function: keras.Function, inputs: list[Value], prefix: str) -> Any:
        """Append the calls of ``function`` applied to ``inputs``; returns its outputs as a structure of values."""
        values = {id(tensor): value for tensor, value in zip(function.inputs, inputs, strict=True)}

        def convert(leaf):
            return values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                args, kwargs = node.arguments.convert(convert)
                outputs = self._apply(node.operation, args, kwargs, node.outputs, prefix)
                values.update(zip(map(id, node.outputs), outputs, strict=True))
        return keras.tree.map_structure(convert, function._outputs_struct)

    def _apply(self, operation, args, kwargs, tensors, prefix) -> tuple[Value, ...]:
        nested = _inner_graph(operation)
        if nested is not None:
            prefix = f"{operation.name}_"
            given = _nested_inputs(operation.name, nested, args, kwargs)
            inputs = [self._as_declared(*pair, prefix) for pair in zip(given, nested.inputs, strict=True)]
            return tuple(values_in(self.inline(nested, inputs, prefix)))
        if isinstance(operation, keras.Layer):
            kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        outputs = tuple(Value(tuple(tensor.shape), _float32_name(tensor.dtype)) for tensor in tensors)
        self.calls.append(Call(self._unit(operation, prefix), tuple(args), kwargs, outputs))
        return outputs

    def _as_declared(self, value: Value, declared: keras.KerasTensor, prefix: str) -> Value:
        """A value in the type of the input that it is bound to; Keras casts what a nested model is called on."""
        dtype = _float32_name(declared.dtype)
        if value.dtype == dtype:
            return value
        cast = Value(value.shape, dtype)
        self.calls.append(Call(self._unit(Cast(dtype), prefix), (value,), {}, (cast,)))
        return cast

    def _unit(self, operation: keras.Operation, prefix: str) -> Unit:
        if id(operation) not in self._units:
            name = operation.name
            if id(operation) not in self._top:
                name = self._free_name(name, prefix)
            self._units[id(operation)] = _read_unit(operation, name)
        return self._units[id(operation)]

    def _free_name(self, name: str, prefix: str) -> str:
        free = name if name not in self._names else unique_name(prefix + name, self._names)
        self._names.add(free)
        return free


def _nested_inputs(name: str, function: keras.Function, args: tuple, kwargs: Mapping[str, Any]) -> list[Value]:
    """The values that a call of a nested model binds to its inputs, in their order."""
    given = args[0] if args else kwargs["inputs"]
    if isinstance(given, dict) and not isinstance(function._inputs_struct, dict):
        given = [given[tensor.name] for tensor in function.inputs]
    values = values_in(given)
    expected = [len(tensor.shape) for tensor in function.inputs]
    found = [len(value.shape) for value in values]
    if expected != found:
        raise ValueError(
            f"the nested model {name!r} is called on tensors of the ranks {found} and declares {expected}; call it on "
            "tensors that match its inputs"
        )
    return values


def _read_unit(operation: keras.Operation, name: str) -> Unit:
    if not isinstance(operation, keras.Layer):
        return Unit(name, type(operation), {}, operation=operation)
    if operation.quantization_mode is not None or getattr(operation, "lora_enabled", False):
        raise ValueError(
            f"layer {name!r} is already quantized by Keras or carries LoRA weights; pass the plain float model"
        )
    try:
        config = {**_float32_config(operation.get_config()), "name": name}
    except NotImplementedError as error:
        raise UnknownGraphError(
            f"layer {name!r} ({type(operation).__name__}) has no config; give it get_config() so that it can be copied"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnknownGraphError(
            f"layer {name!r} ({type(operation).__name__}) has a get_config() that fails: {error}"
        ) from error
    if isinstance(operation, keras.layers.Lambda):
        # Serialised functions lose the names around them; the live ones do not.
        config.update(function=operation.function, output_shape=operation._output_shape, mask=operation.mask)
    weights = tuple((weight.name, _float32_array(weight)) for weight in operation.weights)
    return Unit(name, type(operation), config, weights, inner=tuple(layer.name for layer in _layers_inside(operation)))


def _layers_inside(layer: keras.Layer) -> list[keras.Layer]:
    return [inner for inner in layer._flatten_layers(include_self=False) if isinstance(inner, keras.Layer)]


def _float32_name(dtype: str) -> str:
    return "float32" if dtype in _FLOAT_TYPES else dtype


def _float32_array(weight: keras.Variable) -> np.ndarray:
    array = keras.ops.convert_to_numpy(weight)
    return array.astype(np.float32) if _float32_name(weight.dtype) == "float32" else array


def _float32_config(config: Any) -> Any:
    """Replace every floating point dtype or policy in a (nested) layer config by float32."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and _policy_name(item) in _FLOAT_POLICIES else _float32_config(item)
            for key, item in config.items()
        }
    if isinstance(config, list):
        return [_float32_config(item) for item in config]
    return config


def _policy_name(item: Any) -> Any:
    """Name of a dtype, or of a serialised ``DTypePolicy``."""
    return item["config"].get("name") if isinstance(item, dict) and "config" in item else item


def _input_config(tensor: keras.KerasTensor, open_batch: bool) -> dict[str, Any]:
    """Config of an input layer.

    Args:
        tensor: its output.
        open_batch: open a fixed number of samples above 1, which a Sequential model has from its first call.
    """
    layer = tensor._keras_history.operation
    if layer.optional:
        raise ValueError(f"input {layer.name!r} is optional; a .tflite file needs every input: build without it")
    config = _float32_config(layer.get_config())
    if open_batch and (config["batch_shape"][0] or 0) > 1:
        config["batch_shape"] = (None, *config["batch_shape"][1:])
    return config


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
    return keras.Model(inputs, outputs, name=graph.name)


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
    inside = _layers_inside(operation)
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
