"""Which operators of a float file run on integers, and on which grids."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.lowering.float_fallback import operators_losing_precision
from tfptq.lowering.float_neighbours import activations_of, kernels_for_exact_results, neighbours_of_float
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.grids import assign_grids
from tfptq.lowering.joined_parts import DrownedPart, drowned_parts, joins_to_keep_in_float
from tfptq.lowering.widths import ActivationWidths, widths_of
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Ends:
    """Which ends of the model are float; the others hold integers from the start."""

    float_inputs: bool = True
    float_outputs: bool = True


@dataclass(frozen=True, eq=False)
class Wider:
    """Operators whose activations shall have another width than the others.

    Attributes:
        operators: position -> width, 8 or 16.
        ranges: width -> measured ranges for grids of it, by tensor index.
    """

    operators: Mapping[int, int] = field(default_factory=dict)
    ranges: Mapping[int, Mapping[int, Range]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class IntegerPlan:
    """Which operators of a float file run on integers, and on which grids.

    Attributes:
        operators: positions of the integer operators.
        float_operators: (operator kind, name of its first result, reason) of those that compute on floats and stay so.
        grids: tensor index -> grid of every activation that an integer operator reads or writes.
        bits: width of the activations on the device, 8 or 16.
        wider: position of an operator on integers -> its width, of those that have another.
        converted: (tensor index, width) -> grid of a tensor for operators of another width than its own.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values far beyond their grids.
        drowned: parts of outputs that have few codes on the grid of the whole.
    """

    operators: tuple[int, ...]
    float_operators: tuple[tuple[str, str, str], ...]
    grids: dict[int, ActivationGrid]
    bits: int
    clipped: Mapping[int, Range] = field(default_factory=dict)
    drowned: tuple[DrownedPart, ...] = ()
    wider: Mapping[int, int] = field(default_factory=dict)
    converted: Mapping[tuple[int, int], ActivationGrid] = field(default_factory=dict)

    def bits_of(self, operator: int) -> int:
        """Width of the activations of an operator, by its position."""
        return self.wider.get(operator, self.bits)

    def grids_for(self, operators: Iterable[int]) -> Mapping[int, ActivationGrid]:
        """``grids`` as some operators read them, by their positions."""
        if not self.converted:
            return self.grids
        widths = {self.bits_of(at) for at in operators}
        return {**self.grids, **{index: grid for (index, width), grid in self.converted.items() if width in widths}}


def plan_integers(
    model: TFLiteModel,
    ranges: Mapping[int, Range],
    bits: int = 8,
    skipped: Mapping[int, str] | None = None,
    clipped: Mapping[int, Range] | None = None,
    ends: Ends = Ends(),
    wider: Wider = Wider(),
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
        wider: operators with another width, and what they need.
    """
    integer, reasons = _by_rules(model, bits, skipped or {}, ends, wider.operators)
    following = neighbours_of_float(model, integer, reasons, ends.float_outputs)
    following = following or joins_to_keep_in_float(model, reasons, ranges, bits, ends.float_outputs)
    if following:  # others may follow these
        return plan_integers(model, ranges, bits, {**(skipped or {}), **following}, clipped, ends, wider)
    others = wider.operators
    widths = widths_of(model, integer, bits, others, ends.float_inputs)
    ranges_at = {bits: ranges, **wider.ranges}
    ranges = {**ranges, **{index: ranges_at[it][index] for index, it in widths.tensors.items() if index in ranges}}
    grids = assign_grids(model, [model.operators[at] for at in integer], ranges, bits, widths)
    unfit = {
        at: reason
        for width in sorted({bits, *others.values()})
        for at, reason in operators_losing_precision(
            model, [at for at in integer if others.get(at, bits) == width], grids, ranges, width
        ).items()
    }
    if unfit:  # what they were to share grids with gets others then
        return plan_integers(model, ranges, bits, {**(skipped or {}), **unfit}, clipped, ends, wider)
    left = ((model.operators[at], reasons[at]) for at in sorted(reasons))
    named = tuple((model.operator_name(op), model.name(op.outputs[0]), reason) for op, reason in left)
    drowned = drowned_parts(model, reasons, ranges, bits)
    own = {at: width for at, width in others.items() if at in set(integer) and width != bits}
    converted = _converted(model, integer, grids, ranges_at, widths, ends)
    return IntegerPlan(tuple(integer), named, grids, bits, clipped or {}, drowned, own, converted)


def kernels_to_keep_in_float(model: TFLiteModel, bits: int, ends: Ends = Ends()) -> dict[int, str]:
    """Kernels that had better compute in float, whatever the samples are: position of their operators -> reason."""
    _, reasons = _by_rules(model, bits, {}, ends, {})
    return kernels_for_exact_results(model, reasons)


def _converted(
    model: TFLiteModel,
    integer: Iterable[int],
    grids: Mapping[int, ActivationGrid],
    ranges_at: Mapping[int, Mapping[int, Range]],
    widths: ActivationWidths,
    ends: Ends,
) -> dict[tuple[int, int], ActivationGrid]:
    """Grids of tensors for operators, and for integer outputs, of another width than theirs."""
    if not widths.tensors:
        return {}
    read = [
        (index, widths.of(op)) for op in (model.operators[at] for at in integer) for index in activations_of(model, op)
    ]
    read += [] if ends.float_outputs else [(index, widths.bits) for index in model.subgraph.outputs]
    others = {(index, width) for index, width in read if index in grids and width != grids[index].bits}
    return {(index, width): activation_grid(*ranges_at[width][index], width) for index, width in sorted(others)}


def _by_rules(
    model: TFLiteModel, bits: int, skipped: Mapping[int, str], ends: Ends, wider: Mapping[int, int]
) -> tuple[list[int], dict[int, str]]:
    """Positions of the operators that can run on integers, and position -> reason of those that stay float."""
    integer: list[int] = []
    reasons: dict[int, str] = {}
    float_results: set[int] = set()
    float_inputs = set(model.subgraph.inputs) if ends.float_inputs else set()
    for at, operator in enumerate(model.operators):
        if any(map(model.is_state, operator.outputs)):
            continue  # follows the operator whose state it writes
        reason = skipped.get(at) or model.spec(operator).reason_to_stay_float(model, operator, wider.get(at, bits))
        if reason is None and _continues_float(model, operator, float_results, float_inputs):
            reason = f"{model.operator_name(operator)} continues a computation in float"
        if reason is None and _asks_floats(model, operator, float_results | float_inputs):
            reason = f"{model.operator_name(operator)} asks about float values"
        if reason is not None:
            reasons[at] = reason
            float_results.update(operator.outputs)
        elif any(map(model.is_float, operator.outputs)) or _asks_numbers(model, operator):
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


def _asks_numbers(model: TFLiteModel, operator: Node) -> bool:
    """Whether an operator reads activations, and has results that are none."""
    return bool(model.spec(operator).plain_results and activations_of(model, operator))


def _asks_floats(model: TFLiteModel, operator: Node, floats: set[int]) -> bool:
    """Whether an operator, whose results are no activations, reads nothing but floats: a grid would serve nobody."""
    return _asks_numbers(model, operator) and floats.issuperset(activations_of(model, operator))
