"""Give every activation tensor of a float model its integer grid.

Grids come from measured ranges; tensors that an operator wants on one grid form a group, whose grid covers the
ranges of all its members. A group that holds the output of an operator with a fixed grid (softmax, ...) takes
that grid.
"""

from collections.abc import Mapping

import numpy as np

from tfptq.core.affine import SMALLEST_SCALE, ActivationGrid
from tfptq.lowering.float_neighbours import activations_of
from tfptq.lowering.grid_groups import GridGroups, Range, hull, width_of
from tfptq.lowering.recurrent import cell_grid
from tfptq.lowering.widths import ActivationWidths
from tfptq.ops.operator_spec import Node, OperatorSpec, OutputGrid
from tfptq.ops.table import FUSED_FUNCTIONS
from tfptq.tflite.model import TFLiteModel

#: An input joins the grid of a concatenation when its range covers at least this share of the joint range: it then
#: loses at most one bit. So does one that nobody else reads. Others are requantized just for the operator.
JOIN_SHARE = 0.5
#: What an operator chooses from shares the result's grid where it then has steps at most this many times as coarse, and
#: the result ``1 / JOIN_SHARE`` times: a requantization would cost more.
MOST_WIDENED = 1.25
#: Operators that read one kernel from which on they are taken for steps of a recurrent layer.
FEWEST_STEPS = 3

#: Least maximum of a result of ReLU6: the code of 6 then stays far inside int32.
LEAST_BOUNDED_MAXIMUM = 2.0**-20


def assign_grids(
    model: TFLiteModel,
    integer_operators: list[Node],
    ranges: Mapping[int, Range],
    bits: int,
    widths: ActivationWidths | None = None,
) -> dict[int, ActivationGrid]:
    """Grids of all activation tensors that operators on integers read or write.

    Args:
        model: float model.
        integer_operators: operators that will run on integers.
        ranges: measured ``(minimum, maximum)`` of every float activation tensor, and of constants that shall get
            another range than that of their values.
        bits: width, 8 or 16.
        widths: those of single operators and tensors, where they differ.

    Returns:
        Tensor index -> grid; the model's inputs and outputs are among them, as they may be integers in any case, and
        so are the constants that have a range. Inputs and results of an operator with ``OutputGrid.SAME`` always share
        one. An input of one with ``OutputGrid.JOINT`` may have another grid than its output, and then needs a
        requantization; so may an input that needs the zero point 0, when its grid is fixed.
    """
    widths = widths or ActivationWidths(bits)
    specs = [(operator, model.spec(operator)) for operator in integer_operators]
    hidden = {operator.inputs[spec.states[0]]: operator.outputs[0] for operator, spec in specs if spec.states}
    own = {index: ranges[result] for index, result in hidden.items()}
    groups = GridGroups({**ranges, **own, **_least_ranges(model, integer_operators, ranges)})
    for index, result in hidden.items():
        groups.join(result, index)
    for operator, spec in specs:
        for at in spec.states[1:]:
            groups.fix(operator.inputs[at], cell_grid(max(map(abs, ranges[operator.inputs[at]]))))
    for operator, spec in specs:
        if spec.fixed_grids:
            groups.fix(operator.outputs[0], spec.fixed_grids[widths.of(operator)])
    for operator, spec in specs:
        if spec.output_grid is OutputGrid.SAME:
            source = operator.inputs[spec.data_inputs(operator)[0]]
            for output in filter(model.is_float, operator.outputs):
                if widths.of_tensor(source) == widths.of_tensor(output):
                    groups.join(source, output)
    _join_inputs_of_one_kernel(model, specs, groups, widths)
    readers = model.consumers()
    for operator, spec in specs:
        if spec.chooses:
            _take_chosen(model, operator, groups, readers, widths)
        elif spec.output_grid is OutputGrid.JOINT:
            _join(model, operator, groups, readers, widths)
    for operator, spec in specs:
        for at in spec.symmetric_inputs:
            if not model.is_constant(operator.inputs[at]):
                groups.make_symmetric(operator.inputs[at])
    constants = {index for index in ranges if model.is_constant(index)}
    _scale_by_constants(model, specs, groups, widths, clipped=constants)
    interface = {index for index in (*model.subgraph.inputs, *model.subgraph.outputs) if index in ranges}
    touched = {
        index
        for operator, spec in specs
        for index in (
            *filter(model.is_float, operator.outputs),
            *(operator.inputs[at] for at in (*spec.data_inputs(operator), *spec.states)),
        )
        if not model.is_constant(index)
    }
    return {index: groups.grid(index, widths.of_tensor(index)) for index in sorted(interface | constants | touched)}


def _least_ranges(model: TFLiteModel, operators: list[Node], ranges: Mapping[int, Range]) -> dict[int, Range]:
    """Wider ranges for results that are bounded by ReLU6 and its like but are almost always 0.

    Built-in kernels compute the code of the bound in int32 and refuse a scale under which it overflows.
    """
    bounded = {}
    for operator in operators:
        fused = FUSED_FUNCTIONS.get(getattr(operator.builtinOptions, "fusedActivationFunction", 0))
        if _is_bounded(model.spec(operator)) or (fused is not None and _is_bounded(fused)):
            low, high = ranges[operator.outputs[0]]
            bounded[operator.outputs[0]] = (low, max(high, LEAST_BOUNDED_MAXIMUM))
    return bounded


def ranges_of_tables(model: TFLiteModel) -> dict[int, Range]:
    """Ranges of the float constants that operators pick rows of: of all rows, whichever the samples asked for."""
    tables = {operator.inputs[0] for operator in model.operators if model.spec(operator).picks}
    constants = (index for index in sorted(tables) if model.is_constant(index) and model.is_float(index))
    return {index: (float(model.constant(index).min()), float(model.constant(index).max())) for index in constants}


def _is_bounded(spec: OperatorSpec) -> bool:
    return spec.clamp is not None and spec.clamp[1] is not None


def _join(
    model: TFLiteModel,
    operator: Node,
    groups: GridGroups,
    readers: Mapping[int, list[int]],
    widths: ActivationWidths,
) -> None:
    """Put the inputs of a concatenation and its like on the output's grid, where that does not hurt them."""
    output = operator.outputs[0]
    inputs = [operator.inputs[at] for at in model.spec(operator).data_inputs(operator)]
    own = widths.of(operator)
    inputs = [index for index in inputs if not model.is_constant(index) and widths.of_tensor(index) == own]
    fixed = {groups.fixed(index) for index in inputs}
    low = min(groups.range(index)[0] for index in (*inputs, output))
    high = max(groups.range(index)[1] for index in (*inputs, output))
    for index in dict.fromkeys(inputs):
        alike = width_of(groups.range(index)) >= JOIN_SHARE * (high - low)
        if len(fixed) == 1 and (alike or not _read_elsewhere(model, index, operator, groups, readers)):
            groups.join(index, output)


def _join_inputs_of_one_kernel(
    model: TFLiteModel, specs: list[tuple[Node, OperatorSpec]], groups: GridGroups, widths: ActivationWidths
) -> None:
    """Put what one kernel meets in many operators, the steps of a recurrent layer, on one grid, if that costs little.

    The operators then share their bias as well, whose scale follows from that grid.
    """
    met: dict[int, dict[int, None]] = {}  # kernel -> activations, in order
    for operator, spec in specs:
        if spec.kernel is not None and not spec.places:
            kernel, _, source = (operator.inputs[at] if at < len(operator.inputs) else -1 for at in spec.weights)
            if source not in model.subgraph.inputs and widths.of_tensor(source) == widths.of(operator):
                met.setdefault(kernel, {})[source] = None
    for sources in met.values():
        free = [index for index in sources if groups.fixed(index) is None]
        if len(free) < FEWEST_STEPS:
            continue
        width = max(groups.range(index)[1] for index in free) - min(groups.range(index)[0] for index in free)
        alike = [index for index in free if width_of(groups.range(index)) >= JOIN_SHARE * width]
        for index in alike[1:]:
            groups.join(alike[0], index)


def _take_chosen(
    model: TFLiteModel,
    operator: Node,
    groups: GridGroups,
    readers: Mapping[int, list[int]],
    widths: ActivationWidths,
) -> None:
    """Put what an operator chooses from on the grid of its result: what is not chosen may saturate.

    Also where a comparison with each other chooses. Where others read it as well, only if that costs them little.
    """
    output, operands = operator.outputs[0], activations_of(model, operator)
    for index in operands:
        free = groups.members(index) == {index} and groups.fixed(index) is None and index not in model.subgraph.inputs
        if not free or widths.of_tensor(index) != widths.of(operator):
            continue
        others = [model.operators[at] for at in readers[index] if model.operators[at] is not operator]
        if all(model.spec(it).compares and set(operands).issuperset(it.inputs) for it in others):
            groups.narrow(index, groups.range(output))
            groups.join(index, output)
        else:
            both = hull(groups.range(index), groups.range(output))
            widened = width_of(both) > MOST_WIDENED * width_of(groups.range(index))
            if not widened and width_of(groups.range(output)) >= JOIN_SHARE * width_of(both):
                groups.join(index, output)


def _scale_by_constants(
    model: TFLiteModel,
    specs: list[tuple[Node, OperatorSpec]],
    groups: GridGroups,
    widths: ActivationWidths,
    clipped: set[int],
) -> None:
    """Give the product of an activation and one number the activation's grid times that number: the codes stay."""
    passed_on = {index for operator, spec in specs if spec.output_grid is OutputGrid.SAME for index in operator.outputs}
    symmetric = {operator.inputs[at] for operator, spec in specs for at in spec.symmetric_inputs}
    for operator, _ in specs:
        factor, output = _constant_factor(model, operator), operator.outputs[0]
        if factor is None or not clipped.isdisjoint(operator.inputs):
            continue
        if widths.of(operator) != 8 or groups.fixed(output) is not None:
            continue
        members, index = groups.members(output), activations_of(model, operator)[0]
        alone = members - passed_on == {output} and symmetric.isdisjoint(members)
        if alone and widths.of_tensor(index) == widths.of_tensor(output) == 8:
            grid = groups.grid(index, 8)
            mirrored = -1 - grid.zero_point  # -128 becomes 127
            scale = max(np.float32(grid.scale * abs(factor)), SMALLEST_SCALE)
            groups.fix(output, ActivationGrid(float(scale), grid.zero_point if factor > 0 else mirrored))


def _constant_factor(model: TFLiteModel, operator: Node) -> float | None:
    """The one number, not 0, that an operator multiplies an activation by; None where it does something else."""
    constants = [index for index in operator.inputs if model.is_constant(index)]
    if model.operator_name(operator) != "MUL" or len(constants) != 1 or operator.builtinOptions.fusedActivationFunction:
        return None
    values = model.constant(constants[0])
    return float(values.reshape(-1)[0]) if values.size == 1 and values.all() else None


def _read_elsewhere(
    model: TFLiteModel, index: int, operator: Node, groups: GridGroups, readers: Mapping[int, list[int]]
) -> bool:
    """Whether a tensor or one on its grid is an output, or is read by an operator that leads off that grid."""
    members = groups.members(index)
    if members & set(model.subgraph.outputs):
        return True
    others = [model.operators[at] for member in members for at in readers.get(member, ())]
    return not all(other is operator or members.issuperset(other.outputs) for other in others)
