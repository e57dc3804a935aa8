"""Which operators of a float file run on integers, and on which grids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfptq.core.affine import ActivationGrid
from tfptq.lowering.float_fallback import operators_losing_precision
from tfptq.lowering.grids import Range, assign_grids
from tfptq.ops.operator_spec import Node, OutputGrid
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True, eq=False)
class IntegerPlan:
    """Which operators of a float file run on integers, and on which grids.

    Attributes:
        operators: positions of the integer operators.
        float_operators: (operator kind, name of its first result, reason) of those that compute on floats and stay so.
        grids: tensor index -> grid of every activation that an integer operator reads or writes.
        bits: width of the activations on the device, 8 or 16.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values far beyond their grids.
    """

    operators: tuple[int, ...]
    float_operators: tuple[tuple[str, str, str], ...]
    grids: dict[int, ActivationGrid]
    bits: int
    clipped: Mapping[int, Range] = field(default_factory=dict)


def plan_integers(
    model: TFLiteModel,
    ranges: Mapping[int, Range],
    bits: int = 8,
    skipped: Mapping[int, str] | None = None,
    clipped: Mapping[int, Range] | None = None,
) -> IntegerPlan:
    """Decide which operators of a float model run on integers, and on which grids.

    Args:
        model: float model.
        ranges: ``(minimum, maximum)`` of every float activation tensor, by tensor index; also of constants of which
            only that part counts.
        bits: width of the activations on the device, 8 or 16.
        skipped: position of an operator -> reason to leave it float although it has a rule.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values beyond their ranges.
    """
    integer, reasons = _by_rules(model, bits, skipped or {})
    for at in _lead_to_float(model, integer, reasons):
        integer.remove(at)
        reasons[at] = f"{model.operator_name(model.operators[at])} moves values to a computation in float"
    for at in _squares_for_float(model, integer, reasons):
        integer.remove(at)
        reasons[at] = f"{model.operator_name(model.operators[at])} gives a variance to a computation in float"
    grids = assign_grids(model, [model.operators[at] for at in integer], ranges, bits)
    unfit = operators_losing_precision(model, integer, grids, ranges, bits)
    if unfit:  # what they were to share grids with gets others then
        return plan_integers(model, ranges, bits, {**(skipped or {}), **unfit}, clipped)
    left = ((model.operators[at], reasons[at]) for at in sorted(reasons))
    named = tuple((model.operator_name(op), model.name(op.outputs[0]), reason) for op, reason in left)
    return IntegerPlan(tuple(integer), named, grids, bits, clipped or {})


def _by_rules(model: TFLiteModel, bits: int, skipped: Mapping[int, str]) -> tuple[list[int], dict[int, str]]:
    """Positions of the operators that can run on integers, and position -> reason of those that stay float."""
    integer: list[int] = []
    reasons: dict[int, str] = {}
    float_results: set[int] = set()
    for at, operator in enumerate(model.operators):
        reason = skipped.get(at) or model.spec(operator).reason_to_stay_float(model, operator, bits)
        if reason is None and _continues_float(model, operator, float_results):
            reason = f"{model.operator_name(operator)} continues a computation in float"
        if reason is not None:
            reasons[at] = reason
            float_results.update(operator.outputs)
        elif any(model.is_float(index) for index in operator.outputs):
            integer.append(at)
    return integer, reasons


def _continues_float(model: TFLiteModel, operator: Node, float_results: set[int]) -> bool:
    """Whether a light operator reads nothing but results of float operators.

    Quantizing between two float operators (the 1 + exp(x) inside log(1 + exp(x)), say) costs accuracy and time and
    brings nothing; so a float computation goes on until it meets a kernel or an integer value.
    """
    spec = model.spec(operator)
    if spec.kernel is not None or spec.reads_shape:
        return False
    read = [index for index in operator.inputs if model.is_float(index) and not model.is_constant(index)]
    return bool(read) and all(index in float_results for index in read)


def _lead_to_float(model: TFLiteModel, integer: Sequence[int], in_float: Mapping[int, str]) -> list[int]:
    """Operators that only move values of a float input of the model on to float operators.

    Rounding the values on the way (in the EXPAND_DIMS before a float Conv1D, say) would cost accuracy for nothing.
    """
    readers, producers = model.consumers(), model.producers()
    found: set[int] = set()
    for at in reversed(integer):
        operator = model.operators[at]
        same_grid = model.spec(operator).output_grid is OutputGrid.SAME
        if same_grid and all(
            index not in model.subgraph.outputs and all(to in in_float or to in found for to in readers.get(index, []))
            for index in operator.outputs
        ):
            found.add(at)
    for at in sorted(found):
        operator = model.operators[at]
        source = operator.inputs[model.spec(operator).data_inputs(operator)[0]]
        if producers.get(source, at) in set(integer) - found:
            found.discard(at)
    return sorted(found)


def _squares_for_float(model: TFLiteModel, integer: Sequence[int], in_float: Mapping[int, str]) -> list[int]:
    """Squares, and what sums them up, where nothing but float operators reads the outcome.

    The variance in a normalization is one, whose root has no integer kernel. Squares need twice the bits of their
    roots: 8 bits for them would leave 4 to the standard deviation.
    """
    readers = model.consumers()
    leading: set[int] = set()
    for at in reversed(integer):
        operator = model.operators[at]
        result = operator.outputs[0]
        if not model.spec(operator).summing or result in model.subgraph.outputs:
            continue
        if leading.issuperset(to for to in readers.get(result, []) if to not in in_float):
            leading.add(at)
    found: list[int] = []
    squares: set[int] = set()  # tensors
    for at in sorted(leading):
        operator = model.operators[at]
        if _is_square(model, operator) or squares.intersection(operator.inputs):
            found.append(at)
            squares.update(operator.outputs)
    return found


def _is_square(model: TFLiteModel, operator: Node) -> bool:
    name = model.operator_name(operator)
    return name == "SQUARED_DIFFERENCE" or (name == "MUL" and operator.inputs[0] == operator.inputs[1])
