"""Islands in float inside of a file on integers: where 8 bits cost the outputs more than float costs time.

In a transformer most of the error comes from sums along the residual stream, normalizations, scores and what softmax
and GELU make of them: tensors between dense layers, whose values differ from token to token and channel to channel by
more than one grid of 8 bits holds. The dense layers themselves, with nearly all of the work, lose little. So candidates
are the regions between kernels: operators without weights that hang together, each region as a whole, since every
border between integers and floats takes a QUANTIZE or a DEQUANTIZE.

What a plan costs is one number: its time, and its noise times what the budget of time leaves, both as shares of those of
the plan with all on integers. A region becomes an island where that lowers the sum. Without islands it is the budget, so
that no choice is expected to take longer.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from tfptq.lowering.float_neighbours import activations_of
from tfptq.lowering.plan import Ends, IntegerPlan
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.operator_costs import FLOAT, INT8, OperatorCosts

#: Noise so far below the outputs (30 dB) is about what the rounding of 8-bit weights adds: less of it is no gain.
HARMLESS = 1e-3
#: Islands that lower what a plan costs by a smaller share than this are left out: then 8 bits hold without them, or
#: lose where there are kernels.
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
        before: the plan with none.
        after: the plan with these.
    """

    regions: tuple[tuple[int, ...], ...]
    before: Judged
    after: Judged

    @property
    def operators(self) -> tuple[int, ...]:
        """Positions of all operators in islands."""
        return tuple(at for region in self.regions for at in region)


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
    islands = Islands(tuple(regions), before, before)
    if regions:
        islands = replace(islands, after=judge(islands.operators))
    return islands if cost(islands.after) <= (1.0 - LEAST_SAVING) * cost(before) else Islands((), before, before)


def regions_between_kernels(model: TFLiteModel, plan: IntegerPlan, costs: OperatorCosts) -> list[tuple[int, ...]]:
    """Positions of operators on integers without weights, those together that read each other's results.

    Regions that only move values are none, and none holds an operator whose time is not known.
    """
    candidates = [at for at in plan.operators if _may_be_float(model, model.operators[at])]
    producers = model.producers()
    region = {at: {at} for at in candidates}
    for at in candidates:
        for index in activations_of(model, model.operators[at]):
            source = producers.get(index)
            if source in region and region[source] is not region[at]:
                joined = region[source] | region[at]
                region.update(dict.fromkeys(joined, joined))
    found = dict.fromkeys(tuple(sorted(each)) for each in region.values())
    return [each for each in found if _is_known(model, each, costs) and not _only_moves(model, each)]


def _may_be_float(model: TFLiteModel, operator: Node) -> bool:
    """Whether an operator has no weights, and no table to look up in, which would be four times as large in float."""
    spec = model.spec(operator)
    return spec.kernel is None and not (spec.picks and model.is_constant(operator.inputs[0]))


def _is_known(model: TFLiteModel, region: Collection[int], costs: OperatorCosts) -> bool:
    return all(costs.knows(model.operator_name(model.operators[at])) for at in region)


def _only_moves(model: TFLiteModel, region: Collection[int]) -> bool:
    return all(model.spec(model.operators[at]).moves for at in region)


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


def reasons(model: TFLiteModel, positions: Collection[int]) -> dict[int, str]:
    """Position of an operator in an island -> why it computes in float."""
    return {
        at: f"{model.operator_name(model.operators[at])} is in an island in float (activations='auto')"
        for at in positions
    }
