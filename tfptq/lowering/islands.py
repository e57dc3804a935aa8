"""Islands in float inside of a file on integers: where 8 bits cost the outputs more than float costs time.

In a transformer most of the error comes from sums along the residual stream, normalizations, scores and what softmax
and GELU make of them: tensors between dense layers, whose values differ from token to token and channel to channel by
more than one grid of 8 bits holds. The dense layers themselves, with nearly all of the work, lose little. So candidates
are the regions between kernels: operators without weights that hang together, each region as a whole, since every
border between integers and floats takes a QUANTIZE or a DEQUANTIZE.

What a plan costs is one number: its time, and its noise times what the budget of time leaves, both as shares of those
of the plan with all on integers. A region becomes an island where that lowers the sum. Without islands the sum is the
budget, so that no choice is expected to take longer than that.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from tfptq.base.text import counted
from tfptq.core.decibels import decibels
from tfptq.lowering.float_neighbours import activations_of
from tfptq.lowering.plan import Ends, IntegerPlan
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.operator_costs import FLOAT, INT8, OperatorCosts

#: Noise relative to the outputs (30 dB below them) that hardly counts any more.
HARMLESS = 1e-3
#: Islands that lower what a plan costs by a smaller share than this are left out: 8 bits hold without them, or lose
#: where there are kernels.
LEAST_SAVING = 0.1


@dataclass(frozen=True)
class Judged:
    """What is expected of a plan.

    Attributes:
        noise: power of what rounded activations change in the outputs, relative to that of the outputs.
        microseconds: of one sample.
    """

    noise: float
    microseconds: float


@dataclass(frozen=True)
class Islands:
    """What was chosen.

    Attributes:
        regions: positions of the operators of each island.
        reasons: position of each of these operators -> why it computes in float.
        note: for the report; None where nobody asked for islands.
    """

    regions: tuple[tuple[int, ...], ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    note: str | None = None


NO_ISLANDS = Islands()


def choose_islands(
    model: TFLiteModel,
    plan: IntegerPlan,
    judge: Callable[[Collection[int]], Judged],
    costs: OperatorCosts,
    budget: float,
) -> Islands:
    """Choose the regions that shall compute in float.

    Args:
        model: float model.
        plan: the plan with all on integers that can be.
        judge: positions of operators in float -> what is expected then.
        costs: of operators.
        budget: multiple of the time of ``plan`` that all islands together may cost.
    """
    before = judge(())

    def cost(found: Judged) -> float:
        noise = (found.noise + HARMLESS) / (before.noise + HARMLESS)
        return found.microseconds / before.microseconds + (budget - 1.0) * noise

    regions = [each for each in regions_between_kernels(model, plan, costs) if cost(judge(each)) < cost(before)]
    inside = [at for region in regions for at in region]
    after = judge(inside) if regions else before
    if cost(after) > (1.0 - LEAST_SAVING) * cost(before):
        return Islands(note=f"activations='auto': no islands in float; activations have {_decibels(before)}")
    share = after.microseconds / before.microseconds
    note = (
        f"activations='auto': {counted(len(inside), 'operator')} in {counted(len(regions), 'island')} in float give "
        f"activations {_decibels(after)} in place of {_decibels(before)}, in about {share:.2f} of the time"
    )
    return Islands(tuple(regions), reasons(model, inside), note)


def regions_between_kernels(model: TFLiteModel, plan: IntegerPlan, costs: OperatorCosts) -> list[tuple[int, ...]]:
    """Positions of operators on integers without weights, those together that read each other's results.

    Regions that only move values are none; operators whose time is not known are in none.
    """
    candidates = [at for at in plan.operators if _may_be_float(model, model.operators[at], costs)]
    producers = model.producers()
    region = {at: {at} for at in candidates}
    for at in candidates:
        for index in activations_of(model, model.operators[at]):
            source = producers.get(index)
            if source in region and region[source] is not region[at]:
                joined = region[source] | region[at]
                region.update(dict.fromkeys(joined, joined))
    found = dict.fromkeys(tuple(sorted(each)) for each in region.values())
    moving = {at for at in candidates if model.spec(model.operators[at]).moves}
    return [each for each in found if not moving.issuperset(each)]


def _may_be_float(model: TFLiteModel, operator: Node, costs: OperatorCosts) -> bool:
    """Whether an operator has no weights, and no table to look up in, which would be four times as large in float."""
    spec = model.spec(operator)
    table = spec.picks and model.is_constant(operator.inputs[0])
    return spec.kernel is None and not table and costs.knows(spec.name)


def light_microseconds(model: TFLiteModel, plan: IntegerPlan, costs: OperatorCosts, ends: Ends) -> float:
    """Time of all operators without weights, and of what converts between integers and floats."""
    integer = set(plan.operators)
    times = (
        costs.microseconds(model, operator, INT8 if at in integer else FLOAT)
        for at, operator in enumerate(model.operators)
        if model.spec(operator).kernel is None
    )
    return sum(times) + sum(costs.conversion(model, *each) for each in _conversions(model, plan, ends))


def _conversions(model: TFLiteModel, plan: IntegerPlan, ends: Ends) -> Iterator[tuple[str, int]]:
    """QUANTIZE and DEQUANTIZE with the index of the tensor that is read in both forms."""
    integer, producers, readers = set(plan.operators), model.producers(), model.consumers()
    for index in model.activations():
        own = producers[index] in integer if index in producers else not ends.float_inputs
        read_by = [at for at in readers.get(index, ()) if not model.spec(model.operators[at]).reads_shape]
        on_integers = [at in integer for at in read_by]
        if index in model.subgraph.outputs:
            on_integers.append(not ends.float_outputs)
        if own and not all(on_integers):
            yield "DEQUANTIZE", index
        elif not own and any(on_integers):
            yield "QUANTIZE", index


def _decibels(found: Judged) -> str:
    return f"{decibels(1.0, found.noise):.1f} dB"


def reasons(model: TFLiteModel, positions: Collection[int]) -> dict[int, str]:
    """Position of an operator in an island -> why it computes in float."""
    return {
        at: f"{model.operator_name(model.operators[at])} is in an island in float (activations='auto')"
        for at in positions
    }
