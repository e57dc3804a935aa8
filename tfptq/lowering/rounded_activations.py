"""A float file that rounds activations where a plan has integers: what the grids do to the outputs, before any code.

Weights and constants stay as they are, and sums exact: what integer kernels add to it is small beside the grids.
"""

from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import ActivationGrid
from tfptq.lowering.plan import IntegerPlan
from tfptq.ops.operator_spec import Node, OutputGrid
from tfptq.tflite.model import TFLiteModel


def with_rounded_activations(model: TFLiteModel, plan: IntegerPlan) -> TFLiteModel:
    """A copy of a float model with a FAKE_QUANT behind what lies on a grid.

    All read the rounded values of a tensor that an operator on integers writes; of others, operators on integers alone.
    States of recurrent operators stay as they are.
    """
    found = model.copy()
    found.root.signatureDefs = None
    integer = [found.operators[at] for at in plan.operators]
    written = {index for operator in integer for index in operator.outputs}
    moved = {operator.outputs[0] for operator in integer if _is_on_grid(found, operator, plan)}
    producers = {index: found.operators[at] for index, at in found.producers().items()}
    behind: dict[int, list] = {}  # operator (by identity), 0 for the inputs of the model -> what goes behind it
    for index, grid in plan.grids.items():
        if found.is_constant(index) or index in moved or found.tensors[index].isVariable:
            continue
        new = found.add_activation_like(index, f"{found.name(index)}_rounded", schema.TensorType.FLOAT32)
        for operator in found.operators if index in written else integer:
            operator.inputs = [new if it == index else it for it in operator.inputs]
        if index in written:
            found.subgraph.outputs = [new if it == index else it for it in found.subgraph.outputs]
        place = id(producers[index]) if index in producers else 0
        behind.setdefault(place, []).append(_rounding(found, index, new, grid))
    ordered = list(behind.get(0, ()))
    for operator in found.operators:
        ordered += [operator, *behind.get(id(operator), ())]
    found.operators[:] = ordered
    return found


def _is_on_grid(model: TFLiteModel, operator: Node, plan: IntegerPlan) -> bool:
    """Whether an operator moves values that are on the grid of its result already."""
    spec = model.spec(operator)
    if spec.output_grid is not OutputGrid.SAME or not spec.moves:
        return False
    return plan.grids.get(operator.inputs[0]) == plan.grids[operator.outputs[0]]


def _rounding(model: TFLiteModel, source: int, target: int, grid: ActivationGrid) -> Node:
    low, high = grid.real_range
    options = schema.FakeQuantOptionsT(min=low, max=high, numBits=grid.bits, narrowRange=False)
    return model.new_operator("FAKE_QUANT", [source], [target], options=options)
