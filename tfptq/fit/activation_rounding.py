"""Make a float ``.tflite`` round its activations to coarse grids, as a device with narrow activations would.

Behind the operator that writes an activation comes a ``FAKE_QUANT``. A copy that is to stay float gets an operator
without effect in the same place, so that positions in both copies mean the same.
"""

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import ActivationGrid
from tfptq.tflite.model import TFLiteModel

_NO_LIMIT = np.float32(np.finfo(np.float32).min)


def simulate_activations(
    model: TFLiteModel, grids: Mapping[int, ActivationGrid], *, in_effect: bool = True
) -> dict[int, int]:
    """Round activations to grids (tensor index -> grid), in place; inputs of the model are left alone.

    Without ``in_effect`` they only take up the same places. The result of a changed operator becomes a new tensor; the
    old one holds the rounded values. Returns the old position of each operator -> its new one.
    """
    operators: list[schema.OperatorT] = []
    moved: dict[int, int] = {}
    limit = None
    for at, operator in enumerate(model.operators):
        moved[at] = len(operators)
        operators.append(operator)
        for place, output in enumerate(operator.outputs):
            if output not in grids:
                continue
            inner = model.add_activation_like(
                output, f"{model.name(output)}/before_rounding", schema.TensorType.FLOAT32
            )
            operator.outputs = [*operator.outputs[:place], inner, *operator.outputs[place + 1 :]]
            if in_effect:
                options = _options(grids[output])
                operators.append(model.new_operator("FAKE_QUANT", [inner], [output], options=options))
            else:
                limit = model.add_constant("no_limit", np.array(_NO_LIMIT)) if limit is None else limit
                options = schema.MaximumMinimumOptionsT()
                operators.append(model.new_operator("MAXIMUM", [inner, limit], [output], options=options))
    model.operators[:] = operators
    return moved


def _options(grid: ActivationGrid) -> schema.FakeQuantOptionsT:
    low, high = grid.real_range
    return schema.FakeQuantOptionsT(min=float(low), max=float(high), numBits=grid.bits)
