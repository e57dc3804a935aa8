"""Operators whose operands and results are too far apart in size for integers.

* The integer kernels of ADD, SUB and MUL scale by a ratio of grids, in int32. Where it is large, the result's whole
  range lies within a step or two of an operand's grid; where it is larger still, kernels overflow or abort.
* Channels of an input that are scaled and shifted to one size: where they differ much, an integer grid of the input
  would have a code or two for the smallest. A float input then stays in float up to that point.
* The grids of softmax, sigmoid and tanh are fixed: a result that stays below a few of their steps, such as the
  probability of a rare event, would be lost.
* Comparisons with constants beyond the grid, and of steps for which kernels abort or that they do not tell apart.
* One grid for values to choose from, ``where(mask, x, -1e9)``, has few codes for the smaller ones.
* A sum with an additive mask that a softmax reads, on a grid that covers the mask: no codes are left for the scores.
  Where nothing but softmaxes reads the sum, the mask is cut off instead (``tfptq.lowering.softmax_inputs``).
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tfptq.core.affine import MOST_COARSENING, ActivationGrid, activation_grid
from tfptq.lowering.comparisons import can_compare
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.softmax_inputs import MASKED_ROW
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel

#: Largest ratio of an operand's step to the result's, or of the product of the factors' steps to that of the product.
LARGEST_RATIO = {8: 2.0**8, 16: 2.0**13}
#: Results that have fewer codes than this on a fixed grid are computed in float.
FEWEST_FIXED_CODES = 16
#: Scores that have fewer codes than this in their sum with a mask are lost.
FEWEST_CODES = 4


def operators_losing_precision(
    model: TFLiteModel,
    positions: Iterable[int],
    grids: Mapping[int, ActivationGrid],
    ranges: Mapping[int, Range],
    bits: int,
) -> dict[int, str]:
    """Operators that cannot run on integers with these grids.

    Args:
        model: float model.
        positions: positions of the operators that would.
        grids: tensor index -> grid.
        ranges: tensor index -> measured ``(minimum, maximum)``.
        bits: width of the activations, 8 or 16.

    Returns:
        Position -> reason.
    """
    found: dict[int, str] = {}
    before_softmax = _before_softmax(model)
    for at in positions:
        operator = model.operators[at]
        spec, name = model.spec(operator), model.operator_name(operator)
        if spec.fixed_grids:
            codes = _width(ranges[operator.outputs[0]]) / spec.fixed_grids[bits].scale
            if codes < FEWEST_FIXED_CODES:
                found[at] = f"{name} has results so small that they are {max(codes, 1):.0f} steps of its fixed grid"
        if spec.chooses:
            codes = _fewest_codes(model, operator, grids)
            if codes < FEWEST_FIXED_CODES:
                found[at] = (
                    f"{name} chooses between values so different that {max(codes, 1):.0f} codes are left for some"
                )
        if spec.compares and not can_compare(model, operator, grids):
            found[at] = f"{name} compares values of a size that its integer kernel has no steps for"
        if not spec.arithmetic:
            continue
        result = grids[operator.outputs[0]]
        steps = [_grid(model, index, grids, bits).scale for index in operator.inputs]
        ratio = (steps[0] * steps[1] if name == "MUL" else max(steps)) / result.scale
        if ratio > LARGEST_RATIO[bits]:
            found[at] = f"{name} has operands so large that its result is lost in their rounding"
        elif operator.outputs[0] in before_softmax and name != "MUL" and _loses_scores(model, operator, grids):
            found[at] = f"{name} adds a mask that is not for SOFTMAX alone, and too large for a common grid with scores"
    return found


def inputs_to_scale_in_float(model: TFLiteModel, ranges: Mapping[int, Range]) -> dict[int, str]:
    """Operators that scale and shift the channels of a float input, where its grid would be too coarse for some.

    Args:
        model: float model.
        ranges: tensor index -> measured ``(minimum, maximum)``.

    Returns:
        Position -> reason to leave it in float.
    """
    found: dict[int, str] = {}
    readers = model.consumers()
    for source in filter(model.is_float, model.subgraph.inputs):
        for first in readers.get(source, []):
            chain: list[int] = []
            read = [(source, np.ones((), np.float32))]  # tensors so far, and what multiplies them up to the last one
            for at, factor, result in _scalings(model, readers, source, first):
                chain.append(at)
                read = [(index, gain * factor) for index, gain in read]
                coarse = (np.abs(gain).max() * _width(ranges[index]) for index, gain in read)
                if max(coarse) > MOST_COARSENING * _width(ranges[result]):
                    reason = "scales and shifts an input whose channels differ too much for one grid"
                    found.update({each: f"{model.operator_name(model.operators[each])} {reason}" for each in chain})
                read.append((result, np.ones((), np.float32)))
    return found


def _scalings(
    model: TFLiteModel, readers: Mapping[int, list[int]], index: int, first: int
) -> Iterator[tuple[int, np.ndarray, int]]:
    """The operators in a row that scale and shift a tensor: position, factors, index of the result."""
    at: int | None = first
    while at is not None and (constant := _constant_operand(model, model.operators[at], index)) is not None:
        factor = constant if model.operator_name(model.operators[at]) == "MUL" else np.ones((), np.float32)
        index = model.operators[at].outputs[0]
        yield at, factor, index
        following = readers.get(index, [])
        at = following[0] if len(following) == 1 and index not in model.subgraph.outputs else None


def _constant_operand(model: TFLiteModel, operator: Node, index: int) -> np.ndarray | None:
    """What is added to a tensor, or what multiplies it, if the operator does that with a constant."""
    if not model.spec(operator).arithmetic:
        return None
    others = [other for other in operator.inputs if other != index]
    return model.constant(others[0]) if len(others) == 1 and model.is_constant(others[0]) else None


def _width(limits: Range) -> float:
    """Width of a range with 0 in it."""
    return max(limits[1], 0.0) - min(limits[0], 0.0)


def _grid(model: TFLiteModel, index: int, grids: Mapping[int, ActivationGrid], bits: int) -> ActivationGrid:
    if index in grids:
        return grids[index]
    values = model.constant(index)
    return activation_grid(float(values.min()), float(values.max()), bits)


def _loses_scores(model: TFLiteModel, operator: Node, grids: Mapping[int, ActivationGrid]) -> bool:
    result = grids[operator.outputs[0]]
    if _span(result) < MASKED_ROW:
        return False
    spans = [_span(grids[index]) for index in operator.inputs if not model.is_constant(index)]
    return min(spans) < FEWEST_CODES * result.scale


def _span(grid: ActivationGrid) -> float:
    low, high = grid.real_range
    return high - low


def _fewest_codes(model: TFLiteModel, operator: Node, grids: Mapping[int, ActivationGrid]) -> float:
    """Codes of the operand with the smallest range, on the grid of the result."""
    read = [index for index in operator.inputs if model.is_float(index) and not model.is_constant(index)]
    return min((_span(grids[index]) / grids[operator.outputs[0]].scale for index in read), default=np.inf)


def _before_softmax(model: TFLiteModel) -> set[int]:
    """Tensors that a softmax reads, among others perhaps, directly or moved or through sums and products."""
    found: set[int] = set()
    for operator in reversed(model.operators):
        spec = model.spec(operator)
        if spec.name == "SOFTMAX" or ((spec.moves or spec.arithmetic) and operator.outputs[0] in found):
            found.update(operator.inputs)
    return found
