"""From a Keras model to a ``FlatGraph``; ``rebuild`` goes back.

``read_graph`` walks the recorded calls of a Functional or Sequential model and inlines nested models, so that the
result has layers and operations only. A nested layer keeps its name when no other has it; otherwise it takes the name
of its model as a prefix (Keras forbids ``/`` in names). All floating point computation becomes float32.

The user's layers are only read. ``training`` arguments are dropped: Keras overrides them in inference anyhow.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional  # Keras exports no public name for it.
from keras.src.ops.core import Cast  # Nor for the class behind keras.ops.cast.

from tfptq.base.text import unique_name
from tfptq.graph.flat_graph import Call, FlatGraph, Unit, Value, values_in

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
    return Unit(name, type(operation), config, weights, inner=tuple(layer.name for layer in layers_inside(operation)))


def layers_inside(layer: keras.Layer) -> list[keras.Layer]:
    """The layers inside of a layer, at any depth."""
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
