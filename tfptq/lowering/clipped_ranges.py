"""Ranges of tensors that nothing but clips reads: what a clip cuts off needs no codes.

The grid of a result saturates at its ends, where the clip would cut it off anyhow. The same goes for what is chosen
from: of values below the least result of a maximum, over positions or of two tensors, nothing is left.
"""

import math
from collections.abc import Mapping

from tfptq.lowering.grid_groups import Range
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel

#: A range is not cut to less than this share: results that a clip wipes out on the samples may not be elsewhere.
LEAST_SHARE = 2.0**-6
#: Values may saturate at this share of their range beyond what they are compared with.
COMPARED_MARGIN = 2.0**-5

_EVERYTHING: Range = (-math.inf, math.inf)
_NOTHING: Range = (math.inf, -math.inf)
#: Operators whose results are the largest or the smallest of some values.
_LARGEST = ("MAXIMUM", "REDUCE_MAX", "MAX_POOL_2D")
_SMALLEST = ("MINIMUM", "REDUCE_MIN")


def cut_ranges(model: TFLiteModel, ranges: Mapping[int, Range]) -> dict[int, Range]:
    """The ranges that become narrower: of inputs and results, but those on fixed grids, that nothing but clips reads.

    Args:
        model: float model.
        ranges: tensor index -> measured ``(minimum, maximum)``.

    Returns:
        Tensor index -> narrower range.
    """
    limits = limits_of_readers(model, ranges)
    fixed = {operator.outputs[0] for operator in model.operators if model.spec(operator).fixed_grids}
    found = {}
    for index, (low, high) in limits.items():
        if index not in ranges or index in fixed:
            continue
        least, most = ranges[index]
        cut = min(max(least, low), high), max(min(most, high), low)
        if cut != (least, most) and _width(cut) >= LEAST_SHARE * _width((least, most)):
            found[index] = cut
    return found


def limits_of_readers(model: TFLiteModel, ranges: Mapping[int, Range] | None = None) -> dict[int, Range]:
    """Tensor index -> range outside of which no reader can tell values apart; none where a reader can everywhere.

    Args:
        model: float model.
        ranges: measured ranges, by which also results of maxima and minima limit what they are chosen from.
    """
    readers = model.consumers()
    found: dict[int, Range] = {}
    returned = set(model.subgraph.outputs)
    written = [index for operator in reversed(model.operators) for index in operator.outputs]
    for index in (*written, *model.subgraph.inputs):
        read_by = [model.operators[at] for at in readers.get(index, [])]
        if index not in returned and read_by:
            limits = [_limits_of(model, reader, index, found, ranges or {}) for reader in read_by]
            low, high = min(low for low, _ in limits), max(high for _, high in limits)
            found[index] = (low, high) if low <= high else _EVERYTHING
    return found


def _limits_of(
    model: TFLiteModel, reader: Node, index: int, found: Mapping[int, Range], ranges: Mapping[int, Range]
) -> Range:
    spec, name, result = model.spec(reader), model.operator_name(reader), reader.outputs[0]
    behind = found.get(result, _EVERYTHING)
    if spec.moves or spec.any_number:
        return behind
    if spec.compares and reader.inputs[0] == reader.inputs[1]:
        return _NOTHING  # whether it is a number
    constants = [other for other in reader.inputs if other != index and model.is_constant(other)]
    if spec.compares and constants:
        bounds, margin = model.constant(constants[0]), COMPARED_MARGIN * _width(ranges.get(index, _EVERYTHING))
        return float(bounds.min()) - margin, float(bounds.max()) + margin
    if spec.chooses:  # what is not chosen may be anything
        return _intersection(ranges.get(result, _EVERYTHING), behind)
    if spec.clamp is not None:
        low, high = spec.clamp
        return _intersection((-math.inf if low is None else low, math.inf if high is None else high), behind)
    if name not in (*_LARGEST, *_SMALLEST):
        return _EVERYTHING
    if name in ("MINIMUM", "MAXIMUM") and constants:
        bounds = model.constant(constants[0])
        own = (-math.inf, float(bounds.max())) if name == "MINIMUM" else (float(bounds.min()), math.inf)
    else:
        low, high = _intersection(ranges.get(result, _EVERYTHING), behind)
        own = (low, math.inf) if name in _LARGEST else (-math.inf, high)
    return _intersection(own, behind)


def _intersection(first: Range, second: Range) -> Range:
    """What both ranges hold; a point where they have nothing in common."""
    low = max(first[0], second[0])
    return low, max(min(first[1], second[1]), low)


def _width(limits: Range) -> float:
    """Width of a range with 0 in it."""
    return max(limits[1], 0.0) - min(limits[0], 0.0)
