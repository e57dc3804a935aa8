"""Which operators of a float file run on integers, and on which grids."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfptq.core.affine import ActivationGrid
from tfptq.lowering.float_fallback import operators_losing_precision
from tfptq.lowering.float_neighbours import activations_of, neighbours_of_float
from tfptq.lowering.grids import Range, assign_grids
from tfptq.lowering.joined_parts import DrownedPart, drowned_parts, joins_to_keep_in_float
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Ends:
    """Which ends of the model are float; the others hold integers from the start."""

    float_inputs: bool = True
    float_outputs: bool = True


@dataclass(frozen=True, eq=False)
class IntegerPlan:
    """Which operators of a float file run on integers, and on which grids.

    Attributes:
        operators: positions of the integer operators.
        float_operators: (operator kind, name of its first result, reason) of those that compute on floats and stay so.
        grids: tensor index -> grid of every activation that an integer operator reads or writes.
        bits: width of the activations on the device, 8 or 16.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values far beyond their grids.
        drowned: parts of outputs that have few codes on the grid of the whole.
    """

    operators: tuple[int, ...]
    float_operators: tuple[tuple[str, str, str], ...]
    grids: dict[int, ActivationGrid]
    bits: int
    clipped: Mapping[int, Range] = field(default_factory=dict)
    drowned: tuple[DrownedPart, ...] = ()


def plan_integers(
    model: TFLiteModel,
    ranges: Mapping[int, Range],
    bits: int = 8,
    skipped: Mapping[int, str] | None = None,
    clipped: Mapping[int, Range] | None = None,
    ends: Ends = Ends(),
) -> IntegerPlan:
    """Decide which operators of a float model run on integers, and on which grids.

    Args:
        model: float model.
        ranges: ``(minimum, maximum)`` of every float activation tensor, by tensor index; also of constants of which
            only that part counts.
        bits: width of the activations on the device, 8 or 16.
        skipped: position of an operator -> reason to leave it float although it has a rule.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values beyond their ranges.
        ends: types of the inputs and outputs of the model.
    """
    integer, reasons = _by_rules(model, bits, skipped or {}, ends)
    following = neighbours_of_float(model, integer, reasons)
    following = following or joins_to_keep_in_float(model, reasons, ranges, bits, ends.float_outputs)
    if following:  # others may follow these
        return plan_integers(model, ranges, bits, {**(skipped or {}), **following}, clipped, ends)
    grids = assign_grids(model, [model.operators[at] for at in integer], ranges, bits)
    unfit = operators_losing_precision(model, integer, grids, ranges, bits)
    if unfit:  # what they were to share grids with gets others then
        return plan_integers(model, ranges, bits, {**(skipped or {}), **unfit}, clipped, ends)
    left = ((model.operators[at], reasons[at]) for at in sorted(reasons))
    named = tuple((model.operator_name(op), model.name(op.outputs[0]), reason) for op, reason in left)
    drowned = drowned_parts(model, reasons, ranges, bits)
    return IntegerPlan(tuple(integer), named, grids, bits, clipped or {}, drowned)


def _by_rules(
    model: TFLiteModel, bits: int, skipped: Mapping[int, str], ends: Ends
) -> tuple[list[int], dict[int, str]]:
    """Positions of the operators that can run on integers, and position -> reason of those that stay float."""
    integer: list[int] = []
    reasons: dict[int, str] = {}
    float_results: set[int] = set()
    float_inputs = set(model.subgraph.inputs) if ends.float_inputs else set()
    for at, operator in enumerate(model.operators):
        reason = skipped.get(at) or model.spec(operator).reason_to_stay_float(model, operator, bits)
        if reason is None and _continues_float(model, operator, float_results, float_inputs):
            reason = f"{model.operator_name(operator)} continues a computation in float"
        if reason is not None:
            reasons[at] = reason
            float_results.update(operator.outputs)
        elif any(model.is_float(index) for index in operator.outputs):
            integer.append(at)
    return integer, reasons


def _continues_float(model: TFLiteModel, operator: Node, float_results: set[int], float_inputs: set[int]) -> bool:
    """Whether a light operator reads results of float operators, and nothing else but perhaps float inputs.

    Quantizing between two float operators (the 1 + exp(x) inside log(1 + exp(x)), say) costs accuracy and time and
    brings nothing; so a float computation goes on until it meets a kernel or an integer value.
    """
    spec = model.spec(operator)
    if spec.kernel is not None or spec.reads_shape:
        return False
    read = activations_of(model, operator)
    return not float_results.isdisjoint(read) and (float_results | float_inputs).issuperset(read)
