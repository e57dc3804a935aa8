"""Ranges of tensors that nothing but clips reads: what a clip cuts off needs no codes.

The grid of a result saturates at its ends, where the clip would cut it off anyhow.
"""

import math
from collections.abc import Mapping

from tfptq.lowering.grids import Range
from tfptq.ops.operator_spec import Node, OutputGrid
from tfptq.tflite.model import TFLiteModel

#: A range is not cut to less than this share: results that a clip wipes out on the samples may not be elsewhere.
LEAST_SHARE = 2.0**-6

_EVERYTHING: Range = (-math.inf, math.inf)


def cut_ranges(model: TFLiteModel, ranges: Mapping[int, Range]) -> dict[int, Range]:
    """The ranges that become narrower: of results that operators with grids of their own give to clips alone.

    Args:
        model: float model.
        ranges: tensor index -> measured ``(minimum, maximum)``.

    Returns:
        Tensor index -> narrower range.
    """
    limits = limits_of_readers(model)
    found = {}
    for operator in model.operators:
        spec, index = model.spec(operator), operator.outputs[0]
        low, high = limits.get(index, _EVERYTHING)
        own_grid = spec.moves or (spec.output_grid is OutputGrid.OWN and not spec.fixed_grids)
        if index not in ranges or not own_grid:
            continue
        least, most = ranges[index]
        cut = min(max(least, low), high), max(min(most, high), low)
        if cut != (least, most) and _width(cut) >= LEAST_SHARE * _width((least, most)):
            found[index] = cut
    return found


def limits_of_readers(model: TFLiteModel) -> dict[int, Range]:
    """Tensor index -> range outside of which no reader can tell values apart; none where a reader can everywhere."""
    readers = model.consumers()
    found: dict[int, Range] = {}
    returned = set(model.subgraph.outputs)
    for operator in reversed(model.operators):
        for index in operator.outputs:
            read_by = [model.operators[at] for at in readers.get(index, [])]
            if index not in returned and read_by:
                limits = [_limits_of(model, reader, index, found) for reader in read_by]
                found[index] = min(low for low, _ in limits), max(high for _, high in limits)
    return found


def _limits_of(model: TFLiteModel, reader: Node, index: int, found: Mapping[int, Range]) -> Range:
    spec, name = model.spec(reader), model.operator_name(reader)
    behind = found.get(reader.outputs[0], _EVERYTHING)
    if spec.moves:
        return behind
    if spec.clamp is not None:
        low, high = spec.clamp
        return _intersection((-math.inf if low is None else low, math.inf if high is None else high), behind)
    constants = [other for other in reader.inputs if other != index and model.is_constant(other)]
    if name not in ("MINIMUM", "MAXIMUM") or not constants:
        return _EVERYTHING
    bounds = model.constant(constants[0])
    own = (-math.inf, float(bounds.max())) if name == "MINIMUM" else (float(bounds.min()), math.inf)
    return _intersection(own, behind)


def _intersection(first: Range, second: Range) -> Range:
    """What both ranges hold; a point where they have nothing in common."""
    low = max(first[0], second[0])
    return low, max(min(first[1], second[1]), low)


def _width(limits: Range) -> float:
    """Width of a range with 0 in it."""
    return max(limits[1], 0.0) - min(limits[0], 0.0)
