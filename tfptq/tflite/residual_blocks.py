"""Blocks of a model: what lies between two cuts that a single activation crosses.

A residual or inverted-residual block is one; so is a short chain of kernels. Block-wise reconstruction learns the
kernels of a block together.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfptq.tflite.matching import WeightBinding
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.segments import crossing
from tfptq.tflite.to_tensorflow import can_run

#: A block holds at most that many kernels; longer stretches without a single crossing are left to the layers.
MOST_KERNELS = 8
#: Kernels in a row without a branch are put together up to this number: an inverted residual has three.
CHAIN = 3


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """Operators between two cuts that one activation crosses.

    Attributes:
        start: position of the first operator.
        stop: position after the last one.
        bindings: the kernels in it, in order.
    """

    start: int
    stop: int
    bindings: tuple[WeightBinding, ...]


def find_blocks(
    model: TFLiteModel, position_of: Mapping[int, int], bindings: Sequence[WeightBinding]
) -> list[ResidualBlock]:
    """Cut a model into blocks that hold two kernels or more.

    Args:
        model: float model.
        position_of: position of an operator in the skeleton -> in ``model``.
        bindings: kernels of the skeleton.
    """
    cuts = [cut for cut in range(len(model.operators) + 1) if len(crossing(model, cut)) == 1]
    if len(cuts) < 2:
        return []
    kernels = {position_of[binding.operator]: binding for binding in bindings}
    blocks, start, held = [], 0, []
    for begin, end in itertools.pairwise(cuts):
        inside = [kernels[at] for at in range(begin, end) if at in kernels]
        chained = len(inside) <= 1 and len(held) + len(inside) <= CHAIN
        if held and not chained:
            blocks.append(ResidualBlock(start, begin, tuple(held)))
            start, held = begin, []
        if not held:
            start = begin
        held += inside
    blocks.append(ResidualBlock(start, cuts[-1], tuple(held)))
    return [block for block in blocks if 2 <= len(block.bindings) <= MOST_KERNELS and _runnable(model, block)]


def _runnable(model: TFLiteModel, block: ResidualBlock) -> bool:
    return all(can_run(model, operator) for operator in model.operators[block.start : block.stop])
