"""Parts of one output whose ranges differ so much that the smaller ones drown on a common grid: boxes beside scores.

Where an output of the model is float, its parts are joined in float, each from a grid of its own. Where it holds
integers there is one grid for all, and users must hear of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tfptq.lowering.grid_groups import Range
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel

#: A part that has fewer codes than this in the range of the whole (a quarter of those of int8) drowns.
FEWEST_PART_CODES = 64


@dataclass(frozen=True)
class DrownedPart:
    """A part of an output that has few codes on the grid of the whole.

    Attributes:
        tensor: index of the part's tensor.
        output: index of the output of the model that it is a part of.
        codes: number of codes that its range covers.
    """

    tensor: int
    output: int
    codes: float


def joins_to_keep_in_float(
    model: TFLiteModel, in_float: Mapping[int, str], ranges: Mapping[int, Range], bits: int, float_outputs: bool
) -> dict[int, str]:
    """Operators that join parts of very different ranges, and those behind them -> reason to leave them in float.

    Args:
        model: float model.
        in_float: position of each operator that computes in float -> reason.
        ranges: tensor index -> measured ``(minimum, maximum)``.
        bits: width of the activations, 8 or 16.
        float_outputs: whether outputs of the model are float.
    """
    found: dict[int, str] = {}
    for at, behind in _joins(model, in_float):
        small = _small_parts(model, at, ranges, bits)
        if small and (float_outputs or not _returned(model, behind)):
            reason = f"joins {model.name(small[0][0])} with values so much larger that a common grid would wipe it out"
            found |= {each: f"{model.operator_name(model.operators[each])} {reason}" for each in behind}
    return {at: reason for at, reason in found.items() if at not in in_float}


def drowned_parts(
    model: TFLiteModel, in_float: Mapping[int, str], ranges: Mapping[int, Range], bits: int
) -> tuple[DrownedPart, ...]:
    """The parts of integer outputs that have few codes on the grid of the whole.

    Args:
        model: float model.
        in_float: position of each operator that computes in float -> reason.
        ranges: tensor index -> measured ``(minimum, maximum)``.
        bits: width of the activations, 8 or 16.
    """
    found: dict[tuple[int, int], DrownedPart] = {}
    for at, behind in _joins(model, in_float):
        if at not in in_float:
            for output in _returned(model, behind):
                for part, codes in _small_parts(model, at, ranges, bits):
                    found.setdefault((part, output), DrownedPart(part, output, codes))
    return tuple(found.values())


def _joins(model: TFLiteModel, in_float: Mapping[int, str]) -> Iterator[tuple[int, list[int]]]:
    """Each operator that joins parts for outputs and float operators alone, and the light ones on the way there."""
    readers = model.consumers()
    outputs = set(model.subgraph.outputs)
    behind: dict[int, list[int]] = {}
    for at, operator in reversed(list(enumerate(model.operators))):
        read_by = [to for index in operator.outputs for to in readers.get(index, [])]
        leads = bool(read_by) or bool(outputs.intersection(operator.outputs))
        if leads and model.spec(operator).light and all(to in in_float or to in behind for to in read_by):
            behind[at] = sorted({at, *(each for to in read_by for each in behind.get(to, []))})
            if model.spec(operator).any_number and model.is_float(operator.outputs[0]):
                yield at, behind[at]


def _returned(model: TFLiteModel, positions: list[int]) -> list[int]:
    """The outputs of the model that some operators write."""
    written = {index for at in positions for index in model.operators[at].outputs}
    return [index for index in model.subgraph.outputs if index in written]


def _small_parts(model: TFLiteModel, at: int, ranges: Mapping[int, Range], bits: int) -> list[tuple[int, float]]:
    """Tensor index of each part that drowns in a join -> codes that are left to it."""
    limits = {part: _range(model, part, ranges) for part in _parts(model, model.operators[at])}
    if not limits:
        return []
    width = max(high for _, high in limits.values()) - min(low for low, _ in limits.values())
    codes = {part: (high - low) / width * 2**bits for part, (low, high) in limits.items() if width}
    return [(part, count) for part, count in codes.items() if 0 < count < FEWEST_PART_CODES]


def _parts(model: TFLiteModel, join: Node) -> list[int]:
    """The tensors that a join puts together, through joins in front of it."""
    producers, found = model.producers(), []
    for source in join.inputs:
        while source in producers and _keeps_values(model, model.operators[producers[source]]):
            source = model.operators[producers[source]].inputs[0]
        inner = model.operators[producers[source]] if source in producers else None
        nested = inner is not None and model.spec(inner).any_number
        found += _parts(model, inner) if inner is not None and nested else [source]
    return list(dict.fromkeys(found))


def _keeps_values(model: TFLiteModel, operator: Node) -> bool:
    return model.spec(operator).views or model.operator_name(operator) == "TRANSPOSE"


def _range(model: TFLiteModel, index: int, ranges: Mapping[int, Range]) -> Range:
    """Range of a tensor with 0 in it, as every grid has it."""
    if model.is_constant(index):
        values = model.constant(index)
        return min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    low, high = ranges[index]
    return min(low, 0.0), max(high, 0.0)
