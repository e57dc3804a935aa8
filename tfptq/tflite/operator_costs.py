"""What operators without weights take on int8 and in float, as ``benchmarks/operator_costs.py`` has measured it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tfptq.tflite.model import TFLiteModel

#: An operator with other results than from 8-bit integers or floats does no work on activations.
INT8, FLOAT = "int8", "float"


@dataclass(frozen=True, eq=False)
class OperatorCosts:
    """Measured times.

    Attributes:
        nanoseconds: kind of operator -> ``"int8"`` and ``"float"`` -> time for a value (``values_of``), on one thread.
    """

    nanoseconds: Mapping[str, Mapping[str, float]]

    def knows(self, kind: str) -> bool:
        """Whether a kind of operator was measured on both."""
        return {INT8, FLOAT} <= self.nanoseconds.get(kind, {}).keys()

    def microseconds(self, model: TFLiteModel, operator: Any, on: str) -> float:
        """Time of an operator for one sample; 0 for a kind that was not measured."""
        known = self.nanoseconds.get(model.operator_name(operator), {})
        return 1e-3 * known.get(on, 0.0) * values_of(model, operator)

    def conversion(self, model: TFLiteModel, kind: str, index: int) -> float:
        """Microseconds of a QUANTIZE or DEQUANTIZE of a tensor."""
        return 1e-3 * self.nanoseconds[kind][FLOAT] * math.prod(model.shape(index))


def values_of(model: TFLiteModel, operator: Any) -> int:
    """Values of the largest tensor that an operator reads or writes; of a product of matrices, multiply-accumulates."""
    touched = [index for index in (*operator.inputs, *operator.outputs) if index >= 0]
    if model.operator_name(operator) == "BATCH_MATMUL":
        left = model.shape(operator.inputs[0])
        return math.prod(model.shape(operator.outputs[0])) * left[-2 if operator.builtinOptions.adjX else -1]
    return max(math.prod(model.shape(index)) for index in touched)


@cache
def load_operator_costs(name: str) -> OperatorCosts | None:
    """The costs of a target with a table, such as ``"cpu"``; None where operators were not measured."""
    text = (resources.files("tfptq.tflite") / "cost_tables" / f"{name}.json").read_text(encoding="utf-8")
    found = json.loads(text).get("operators")
    return None if found is None else OperatorCosts(found["nanoseconds"])
