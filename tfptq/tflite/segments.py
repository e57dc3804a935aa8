"""Cut a model into segments that run on their own.

A *cut* before an operator separates those that ran from those that will. The activations that cross it (written
before, read after) are all that the rest of the model needs: stored, they spare running the first part again.
"""

from collections.abc import Iterable, Sequence

from ai_edge_litert import schema_py_generated as schema

from tfptq.ops.table import FUSED_FUNCTIONS
from tfptq.tflite.model import TFLiteModel


def unfuse_activations(model: TFLiteModel, positions: Iterable[int]) -> dict[int, int]:
    """Split fused activation functions off some operators, so that what comes before them can be seen.

    Args:
        model: edited in place.
        positions: of operators.

    Returns:
        Old position of each operator -> its new one. The result of a split operator becomes a new tensor; the old
        one is what the activation function writes.
    """
    wanted = set(positions)
    operators: list = []
    moved: dict[int, int] = {}
    for at, operator in enumerate(model.operators):
        moved[at] = len(operators)
        operators.append(operator)
        function = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        of_result = not model.spec(operator).states  # else it is one inside of the operator
        if at in wanted and of_result and function in FUSED_FUNCTIONS:
            output = operator.outputs[0]
            name = f"{model.name(output)}/before_activation"
            inner = model.add_activation_like(output, name, schema.TensorType.FLOAT32)
            operator.outputs, operator.builtinOptions.fusedActivationFunction = [inner], 0
            operators.append(model.new_operator(FUSED_FUNCTIONS[function].name, [inner], [output]))
    model.operators[:] = operators
    return moved


def crossing(model: TFLiteModel, cut: int) -> list[int]:
    """Activations that cross the cut before the operator at position ``cut``, inputs of the model among them."""
    written = set(model.subgraph.inputs)
    for operator in model.operators[:cut]:
        written.update(operator.outputs)
    read = set(model.subgraph.outputs)
    for operator in model.operators[cut:]:
        read.update(operator.inputs)
    return sorted(index for index in written & read if not (model.is_constant(index) or model.is_state(index)))


def extract_segment(model: TFLiteModel, start: int, stop: int, outputs: Iterable[int]) -> TFLiteModel:
    """The operators from ``start`` to before ``stop`` that ``outputs`` depend on, as a model of its own.

    Returns:
        Model whose inputs are the activations that cross the cut at ``start`` and are read in the segment, and whose
        outputs are ``outputs``, in their order. States start as in the whole model.
    """
    outputs = list(outputs)
    starts = [each for each in model.operators[:start] if any(map(model.is_state, each.outputs))]
    operators = _needed([*starts, *model.operators[start:stop]], outputs)
    written: set[int] = set()
    read: set[int] = set()
    for operator in operators:
        read.update(index for index in operator.inputs if index >= 0)
        written.update(operator.outputs)
    # What nothing writes is a constant, also one without values, such as the shape of a number, which has no bytes.
    computed = {*model.subgraph.inputs, *(index for operator in model.operators for index in operator.outputs)}
    part = model.part(operators, sorted((read - written) & computed), outputs)
    part.remove_unused()
    return part


def _needed(operators: Sequence, outputs: Iterable[int]) -> list:
    """The operators that some tensors depend on, and those that write none: they have other effects."""
    needed, found = set(outputs), []
    for operator in reversed(operators):
        if not len(operator.outputs) or needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            found.append(operator)
    return found[::-1]
