"""What a softmax cannot tell apart: limits for tensors that nothing but softmaxes read.

``exp(-20)`` is nothing beside 1, so whatever lies by more than ``REACH`` below the maximum of its row may as well lie
at that distance. An additive mask, ``scores + (1 - mask) * -1e9``, lies far below; a grid that covers it has no codes
left for the scores. With the least maximum of a row, ``m``, values may be clipped at the floor ``m - REACH``, and so
may what they are made of, without a change of the clipped result:

* ``t + u`` with the floor ``f``: ``t`` has the floor ``f - max u``.
* ``t - u`` with the floor ``f``: ``t`` has the floor ``f + min u`` and ``u`` the ceiling ``max t - f``.
* ``x * c`` with a constant ``c`` and no results above 0: ``c`` need not be larger than ``|f| / min |x|``, over the
  ``x`` other than 0.
* ``t * c`` with a smaller constant that is one number, ``c > 0``: ``t`` has the floor ``f / c``.
* Operators that only move values, or choose between them (``where(mask, scores, -1e9)``), hand the floor on.

Ceilings are the mirror image.
"""

import math
from collections.abc import Mapping

import numpy as np

from tfptq.ops.operator_spec import Node, OperatorSpec
from tfptq.tflite.model import TFLiteModel

#: Distance from the maximum of a row from which on values are nothing: exp(-20) = 2e-9.
REACH = 20.0
#: A row so far below another one of its batch is masked as a whole: its maximum is that of the mask, not of scores.
#: Its probabilities come out about the same, which is what float32 makes of a mask of -1e9, but not of -1e4.
MASKED_ROW = 500.0
#: Factors of a constant mask other than 0 may differ by so much; 8-bit grids hold no smaller ones beside the largest.
_LARGEST_RATIO = 256.0

Limits = tuple[float, float]
#: Limits of a tensor all of whose values count.
NO_LIMITS: Limits = (-math.inf, math.inf)


class SoftmaxInputs:
    """The tensors of a model that reach only softmaxes, constants among them.

    Attributes:
        tensors: activations whose values ``limits`` wants to see.
        constants: index -> float32 values of the constants that have limits.

    Args:
        model: float model.
    """

    def __init__(self, model: TFLiteModel):
        readers = model.consumers()
        # (operator, inputs, output) from the last operator to the first: a reader comes before what it reads.
        self._steps: list[tuple[OperatorSpec, tuple[int, ...], int]] = []
        limited: set[int] = set()
        refused = set(model.subgraph.outputs)
        for operator in reversed(model.operators):
            spec = model.spec(operator)
            inputs = [index for index in operator.inputs if model.is_float(index)]
            starts = spec.name == "SOFTMAX" or operator.outputs[0] in limited - refused
            if not starts or not _passes_limits(spec, operator):
                refused.update(operator.inputs)
                continue
            if spec.moves or spec.name == "SOFTMAX":
                inputs = inputs[:1]
            self._steps.append((spec, tuple(inputs), operator.outputs[0]))
            limited.update(inputs)
        self._limited = limited - refused
        touched = {index for _, inputs, output in self._steps for index in (*inputs, output)}
        self.tensors = frozenset(index for index in touched if not model.is_constant(index))
        # A constant that moves, or that a softmax reads, is an activation by the time integers read it.
        self.constants = {
            index: model.constant(index)
            for index in sorted(self._limited - self.tensors)
            if all(_reads_as_constant(model.spec(model.operators[at])) for at in readers[index])
        }
        self._all_constants = {index: model.constant(index) for index in touched - self.tensors}

    def limits(self, values: Mapping[int, np.ndarray]) -> dict[int, Limits]:
        """Limits for one batch.

        Args:
            values: values of ``tensors`` (others are ignored).

        Returns:
            Index of a tensor -> (floor, ceiling), for the activations and constants that have limits.
        """
        values = {**self._all_constants, **values}
        found: dict[int, Limits] = {}
        for spec, inputs, output in self._steps:
            operands = [values[index] for index in inputs]
            constant = [index in self._all_constants for index in inputs]
            given = _given(spec, operands, constant, values[output], found.get(output, NO_LIMITS))
            for index, (low, high) in zip(inputs, given, strict=True):
                known = found.get(index)
                # Several readers: what one of them can tell apart must stay.
                found[index] = (low, high) if known is None else (min(low, known[0]), max(high, known[1]))
        return {index: limits for index, limits in found.items() if index in self._limited}


def _passes_limits(spec: OperatorSpec, operator: Node) -> bool:
    """Whether an operator's inputs have limits where its results have."""
    if spec.name == "SOFTMAX":
        return getattr(operator.builtinOptions, "beta", 1.0) == 1.0
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    return (spec.moves or spec.arithmetic or spec.chooses) and not fused


def _reads_as_constant(spec: OperatorSpec) -> bool:
    """Whether a constant operand keeps its own values until the operator reads it."""
    return spec.arithmetic or spec.chooses


def _given(
    spec: OperatorSpec, operands: list[np.ndarray], constant: list[bool], result: np.ndarray, limits: Limits
) -> list[Limits]:
    """Limits of the operands of an operator whose result has limits."""
    if spec.name == "SOFTMAX":
        return [(_floor(operands[0]), math.inf)]
    if spec.moves or spec.chooses:
        return [limits] * len(operands)
    low, high = limits
    first, second = operands
    if spec.name == "MUL":
        if constant == [False, True]:
            return _product_limits(first, second, result, limits)
        return _product_limits(second, first, result, limits)[::-1] if constant == [True, False] else [NO_LIMITS] * 2
    # An infinite limit stays one beside infinite operands.
    (least, most), (least_u, most_u) = _extremes(first), _extremes(second)
    if spec.name == "ADD":
        return [_sums(low, -most_u, high, -least_u), _sums(low, -most, high, -least)]
    return [_sums(low, least_u, high, most_u), _sums(least, -high, most, -low)]


def _sums(low: float, to_low: float, high: float, to_high: float) -> Limits:
    floor = low + to_low if math.isfinite(low) and math.isfinite(to_low) else -math.inf
    ceiling = high + to_high if math.isfinite(high) and math.isfinite(to_high) else math.inf
    return floor, ceiling


def _extremes(values: np.ndarray) -> Limits:
    return float(values.min()), float(values.max())


def _floor(values: np.ndarray) -> float:
    """``REACH`` below the least maximum of a row, other than of rows that are masked as a whole."""
    maxima = values.max(axis=-1)
    return float(maxima[maxima >= maxima.max() - MASKED_ROW].min(initial=math.inf)) - REACH


def _product_limits(values: np.ndarray, constant: np.ndarray, result: np.ndarray, limits: Limits) -> list[Limits]:
    """Limits of an activation and of the constant that it is multiplied by; only one of them gets any."""
    (low, high), sizes = limits, np.abs(values[values != 0.0])
    if not sizes.size:  # whatever the constant is, all products are 0 in this batch
        return [NO_LIMITS, (0.0, 0.0)]
    bound = math.inf
    if sizes.max() <= _LARGEST_RATIO * sizes.min():
        if math.isfinite(low) and low < 0.0 and result.max() <= 0.0:
            bound = -low / float(sizes.min())
        elif math.isfinite(high) and high > 0.0 and result.min() >= 0.0:
            bound = high / float(sizes.min())
    if np.abs(constant).max() > bound:
        return [NO_LIMITS, (-bound, bound)]
    if constant.size == 1 and constant.min() > 0.0:
        return [(low / float(constant.min()), high / float(constant.min())), NO_LIMITS]
    return [NO_LIMITS, NO_LIMITS]
