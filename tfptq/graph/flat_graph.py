"""A Keras graph as plain values: what every graph pass reads and returns.

A model is a list of calls in topological order. A ``Call`` applies a ``Unit`` (a layer or a ``keras.ops`` operation,
with its config and its weights as numpy arrays) to arguments and yields outputs; tensors are ``Value`` objects,
compared by identity. A layer that is called several times is one ``Unit`` in several calls.

Nothing is changed in place: a pass returns a new ``FlatGraph`` with new units and calls. A value keeps its identity
through the passes, so it always stands for the same tensor of the user's model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class Value:
    """One symbolic tensor; ``shape`` starts with the batch axis and has None for unknown sizes."""

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def channels(self) -> int:
        """Size of the last axis, which layers with kernels must know."""
        size = self.shape[-1]
        if size is None:
            raise ValueError(f"a tensor of shape {self.shape} has an open number of channels; give the input a size")
        return size


@dataclass(frozen=True, eq=False)
class Unit:
    """A layer or operation, apart from the places where it is called.

    Attributes:
        name: unique in the graph.
        kind: Keras class.
        config: what ``kind.from_config`` takes; empty for operations that are not layers.
        weights: (variable name, array) in the order of ``layer.weights``.
        operation: for ``keras.ops`` operations, which have no weights, the operation itself; None for layers.
        inner: names of the layers inside of the layer; those without a name of their own would be numbered anew.
    """

    name: str
    kind: type[keras.Operation]
    config: Mapping[str, Any]
    weights: tuple[tuple[str, np.ndarray], ...] = ()
    operation: keras.Operation | None = None
    inner: tuple[str, ...] = ()

    def weight(self, name: str) -> np.ndarray | None:
        """The first weight called ``name``, in the layout of the layer, or None."""
        return next((array for key, array in self.weights if key == name), None)

    @property
    def kernel(self) -> np.ndarray:
        """The kernel of a convolution or dense layer."""
        return dict(self.weights)["kernel"]


def values_in(structure: Any) -> list[Value]:
    """All values in a nested structure, in order, repeated ones repeatedly."""
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Value)]


def map_values(function: Callable[[Value], Any], structure: Any) -> Any:
    """Replace the values in a nested structure by ``function(value)`` and leave everything else."""
    return keras.tree.map_structure(lambda leaf: function(leaf) if isinstance(leaf, Value) else leaf, structure)


@dataclass(frozen=True, eq=False)
class Call:
    """One application of a unit to nested arguments with values as leaves.

    Its ``outputs`` are in the order of ``keras.tree.flatten``.
    """

    unit: Unit
    args: tuple
    kwargs: Mapping[str, Any]
    outputs: tuple[Value, ...]

    @cached_property
    def inputs(self) -> list[Value]:
        """The values among the arguments."""
        return values_in((self.args, dict(self.kwargs)))

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value


@dataclass(frozen=True, eq=False)
class FlatGraph:
    """A whole model without nesting: its calls in topological order, and the structures of its inputs and outputs.

    ``input_configs`` are the configs of the ``InputLayer``s, in the order of ``keras.tree.flatten(inputs)``.
    """

    name: str
    input_configs: tuple[Mapping[str, Any], ...]
    inputs: Any
    outputs: Any
    calls: tuple[Call, ...]

    @cached_property
    def producers(self) -> dict[Value, Call]:
        """The call that yields each value; model inputs have none."""
        return {value: call for call in self.calls for value in call.outputs}

    @cached_property
    def _users(self) -> dict[Value, list[Call]]:
        users: dict[Value, list[Call]] = {}
        for call in self.calls:
            for value in call.inputs:
                users.setdefault(value, []).append(call)
        return users

    @cached_property
    def _calls_of_units(self) -> dict[Unit, list[Call]]:
        calls: dict[Unit, list[Call]] = {}
        for call in self.calls:
            calls.setdefault(call.unit, []).append(call)
        return calls

    @cached_property
    def output_values(self) -> frozenset[Value]:
        """The values that the model returns."""
        return frozenset(values_in(self.outputs))

    def users(self, value: Value) -> list[Call]:
        """The calls that take ``value``, once for each time they take it."""
        return self._users.get(value, [])

    def only_user(self, value: Value) -> Call | None:
        """The call that takes ``value``, if nothing else does and the model does not return it."""
        users = self.users(value)
        return users[0] if len(users) == 1 and value not in self.output_values else None

    def called_once(self, call: Call) -> bool:
        """Whether the unit of ``call`` is called nowhere else."""
        return len(self.calls_of(call.unit)) == 1

    def calls_of(self, unit: Unit) -> list[Call]:
        """The calls of a unit, in order."""
        return self._calls_of_units.get(unit, [])

    @property
    def units(self) -> list[Unit]:
        """All units in the order of their first call."""
        return list(self._calls_of_units)

    def with_calls(self, calls: Iterable[Call]) -> "FlatGraph":
        """The same graph with other calls."""
        return replace(self, calls=tuple(calls))

    def replace_calls(self, changes: Mapping[Call, Iterable[Call]]) -> "FlatGraph":
        """Put other calls (or none) in the place of some calls."""
        return self.with_calls(new for call in self.calls for new in changes.get(call, (call,)))

    def replace_units(self, changes: Mapping[Unit, Unit]) -> "FlatGraph":
        """Call other units in the place of some units, with the same arguments and outputs."""
        return self.with_calls(
            replace(call, unit=changes[call.unit]) if call.unit in changes else call for call in self.calls
        )

    def substitute(self, replacements: Mapping[Value, Value]) -> "FlatGraph":
        """Read one value in the place of another, everywhere. No replacement may itself be replaced."""

        def swap(value: Value) -> Value:
            return replacements.get(value, value)

        def rewire(call: Call) -> Call:
            if not any(value in replacements for value in call.inputs):
                return call
            return replace(call, args=map_values(swap, call.args), kwargs=map_values(swap, dict(call.kwargs)))

        return replace(self, outputs=map_values(swap, self.outputs), calls=tuple(map(rewire, self.calls)))
