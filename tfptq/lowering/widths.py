"""Widths of activations where single operators have another one than the others.

An operator reads and writes activations of its own width. What another one reads is requantized for it. A result of a
float operator, or a float input, has the largest width that one of its readers wants.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tfptq.lowering.float_neighbours import activations_of
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True, eq=False)
class ActivationWidths:
    """Widths of operators and tensors.

    Attributes:
        bits: width of most.
        operators: operator (by identity) -> its width, of those that have another.
        tensors: index of a tensor -> its width, of those that have another.
    """

    bits: int
    operators: Mapping[int, int] = field(default_factory=dict)
    tensors: Mapping[int, int] = field(default_factory=dict)

    def of(self, operator: Node) -> int:
        """Width of an operator."""
        return self.operators.get(id(operator), self.bits)

    def of_tensor(self, index: int) -> int:
        """Width of what writes a tensor."""
        return self.tensors.get(index, self.bits)


def widths_of(
    model: TFLiteModel, integer: Iterable[int], bits: int, others: Mapping[int, int], float_inputs: bool
) -> ActivationWidths:
    """Widths of all operators on integers, and of what they read and write.

    Args:
        model: float model.
        integer: positions of the operators on integers.
        bits: width of most.
        others: position of an operator -> another width.
        float_inputs: whether the inputs of the model are floats, so that they may have any width.
    """
    own = {at: others.get(at, bits) for at in integer}
    tensors = {index: width for at, width in own.items() for index in model.operators[at].outputs}
    if not float_inputs:
        tensors.update(dict.fromkeys(model.subgraph.inputs, bits))
    read: dict[int, int] = {}
    for at, width in own.items():
        for index in activations_of(model, model.operators[at]):
            if index not in tensors:
                read[index] = max(read.get(index, 0), width)
    operators = {id(model.operators[at]): width for at, width in own.items() if width != bits}
    return ActivationWidths(bits, operators, {index: it for index, it in {**tensors, **read}.items() if it != bits})
