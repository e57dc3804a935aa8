"""Operators whose operands and results are too far apart in size for integers.

* The integer kernels of ADD, SUB and MUL scale by a ratio of grids, in int32. Where it is large, the result's whole
  range lies within a step or two of an operand's grid; where it is larger still, kernels overflow or abort.
* A sum with an additive mask that a softmax reads, on a grid that covers the mask: no codes are left for the scores.
  Where nothing but softmaxes reads the sum, the mask is cut off instead (``tfptq.tflite.softmax_inputs``).
"""

from collections.abc import Iterable, Mapping

from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.softmax_inputs import ARITHMETIC, MASKED_ROW, MOVING

#: Largest ratio of an operand's step to the result's, or of the product of the factors' steps to that of the product.
LARGEST_RATIO = {8: 2.0**8, 16: 2.0**13}
#: Scores that have fewer codes than this in their sum with a mask are lost.
FEWEST_CODES = 4


def out_of_proportion(
    model: TFLiteModel, positions: Iterable[int], grids: Mapping[int, ActivationGrid], bits: int
) -> dict[int, str]:
    """Operators that cannot run on integers with these grids.

    Args:
        model: float model.
        positions: positions of the operators that would.
        grids: tensor index -> grid.
        bits: width of the activations, 8 or 16.

    Returns:
        Position -> reason.
    """
    found, before_softmax = {}, _before_softmax(model)
    for at in positions:
        operator = model.operators[at]
        name = model.operator_name(operator)
        if name not in ARITHMETIC:
            continue
        result = grids[operator.outputs[0]]
        steps = [_grid(model, index, grids, bits).scale for index in operator.inputs]
        ratio = (steps[0] * steps[1] if name == "MUL" else max(steps)) / result.scale
        if ratio > LARGEST_RATIO[bits]:
            found[at] = f"{name} has operands so large that its result is lost in their rounding"
        elif operator.outputs[0] in before_softmax and name != "MUL" and _loses_scores(model, operator, grids):
            found[at] = f"{name} adds a mask that is not for SOFTMAX alone, and too large for a common grid with scores"
    return found


def _grid(model: TFLiteModel, index: int, grids: Mapping[int, ActivationGrid], bits: int) -> ActivationGrid:
    if index in grids:
        return grids[index]
    values = model.constant(index)
    return activation_grid(float(values.min()), float(values.max()), bits)


def _loses_scores(model: TFLiteModel, operator, grids: Mapping[int, ActivationGrid]) -> bool:
    result = grids[operator.outputs[0]]
    if _span(result) < MASKED_ROW:
        return False
    spans = [_span(grids[index]) for index in operator.inputs if not model.is_constant(index)]
    return min(spans) < FEWEST_CODES * result.scale


def _span(grid: ActivationGrid) -> float:
    low, high = grid.real_range
    return high - low


def _before_softmax(model: TFLiteModel) -> set[int]:
    """Tensors that a softmax reads, among others perhaps, directly or moved or through sums and products."""
    found: set[int] = set()
    for operator in reversed(model.operators):
        name = model.operator_name(operator)
        if name == "SOFTMAX" or (name in (*MOVING, *ARITHMETIC) and operator.outputs[0] in found):
            found.update(operator.inputs)
    return found
