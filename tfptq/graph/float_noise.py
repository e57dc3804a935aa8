"""A network that rounds otherwise: how far float32 itself lets the outputs of a network move.

Where large, nearly equal values are subtracted, or small differences are amplified, the last bits of what is computed
on the way decide on the result. Two networks that compute the same are then as far apart as one from itself, computed
in another order. The network made here takes one step of float32 off a random half of its inputs, and of what each
layer and operation returns; to round what a kernel reads stands for rounding the kernel, its products and their sums.
"""

from typing import Any

import keras

from tfptq.base.text import unique_name
from tfptq.graph.flat_graph import Call, Unit, Value, values_in
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model

#: One step of float32, relative to the value.
_STEP = 2.0**-23


class _RoundOtherwise(keras.layers.Layer):
    """Takes one step of float32 off a random half of the values: nearer to 0, so that roots keep their domain."""

    def __init__(self, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self._draws = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any) -> Any:
        moved = keras.random.uniform(keras.ops.shape(inputs), seed=self._draws) < 0.5
        return inputs * (1.0 - _STEP * keras.ops.cast(moved, inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def rounding_otherwise(model: keras.Model) -> keras.Model:
    """A float32 copy of a model that rounds its values at random: in each call anew, and the same in each copy."""
    graph = read_graph(model)
    taken = {unit.name for unit in graph.units}
    produced = [*values_in(graph.inputs), *(value for call in graph.calls for value in call.outputs)]
    floating = [value for value in produced if value.dtype == "float32"]
    roundings = {value: _rounding_of(value, seed, taken) for seed, value in enumerate(floating)}
    changed = graph.substitute({value: rounding.output for value, rounding in roundings.items()})
    calls = [roundings[value] for value in values_in(graph.inputs) if value in roundings]
    for call in changed.calls:
        calls += [call, *(roundings[value] for value in call.outputs if value in roundings)]
    return build_model(changed.with_calls(calls))


def _rounding_of(value: Value, seed: int, taken: set[str]) -> Call:
    name = unique_name("round_otherwise", taken)
    taken.add(name)
    unit = Unit(name, _RoundOtherwise, {"seed": seed, "name": name})
    return Call(unit, (value,), {}, (Value(value.shape, value.dtype),))
