"""Light operators that compute in float because of the float operators around them.

* What lies between float values (inputs of the model, results of float operators) and float operators: rounding on the
  way would cost accuracy for nothing.
* Squares, and what sums them up, in front of a root: the variance of a normalization.
* Squares that nothing but a float output reads: they have twice the bits of their roots, too.
* What a logarithm, root, power or division reads: the error of a small value counts relative to that value, and a grid
  rounds the small ones to 0 (``log(x + 1e-6)``).

Kernels keep their integers; what one writes is dequantized for the first of these operators. The exception are kernels
that read results of float operators for a logarithm or its like, such as the bands of a mel spectrogram.
"""

from collections.abc import Mapping, Sequence

from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel


def neighbours_of_float(
    model: TFLiteModel, integer: Sequence[int], in_float: Mapping[int, str], float_outputs: bool
) -> dict[int, str]:
    """Operators that shall follow their neighbours into float.

    Args:
        model: float model.
        integer: positions of the operators that would run on integers.
        in_float: position of each operator that computes in float -> reason.
        float_outputs: whether the outputs of the model are float.

    Returns:
        Position -> reason.
    """
    found = {at: "is all that lies between float values and a computation in float" for at in _between(model, in_float)}
    found |= {at: "gives a variance to a computation in float" for at in _squares(model, integer, in_float)}
    if float_outputs:
        found |= {at: "gives squares to a float output" for at in integer if _is_last_square(model, at)}
    for at, reader in _near_zero(model, {*in_float, *found})[0].items():
        found.setdefault(at, f"gives {reader} values that must be exact near 0")
    integers = set(integer)
    return {at: f"{model.operator_name(model.operators[at])} {found[at]}" for at in sorted(integers & set(found))}


def activations_of(model: TFLiteModel, operator: Node) -> list[int]:
    """The float inputs of an operator that are no constants, and no states of its own."""
    inputs = [index for index in operator.inputs if model.is_float(index) and not model.is_constant(index)]
    return [index for index in inputs if not model.is_state(index)]


def _between(model: TFLiteModel, in_float: Mapping[int, str]) -> set[int]:
    """Light operators that read nothing but float values and are read by nothing but float operators."""
    readers = model.consumers()
    leading: set[int] = set()
    for at, operator in reversed(list(enumerate(model.operators))):
        read_by = [to for index in operator.outputs for to in readers.get(index, [])]
        returned = set(operator.outputs) & set(model.subgraph.outputs)
        spec = model.spec(operator)
        light = at not in in_float and spec.light and not spec.plain_results
        if light and read_by and not returned and all(to in in_float or to in leading for to in read_by):
            leading.add(at)
    producers = model.producers()
    for at in sorted(leading):
        sources = [producers.get(index) for index in activations_of(model, model.operators[at])]
        if not sources or not all(source is None or source in in_float or source in leading for source in sources):
            leading.discard(at)
    return leading


def _squares(model: TFLiteModel, integer: Sequence[int], in_float: Mapping[int, str]) -> list[int]:
    """Squares, and what sums them up, where nothing but float operators reads the outcome.

    Squares need twice the bits of their roots: 8 bits for them would leave 4 to the standard deviation.
    """
    readers = model.consumers()
    leading: set[int] = set()
    for at in reversed(integer):
        operator = model.operators[at]
        result = operator.outputs[0]
        if not model.spec(operator).summing or result in model.subgraph.outputs:
            continue
        if leading.issuperset(to for to in readers.get(result, []) if to not in in_float):
            leading.add(at)
    found: list[int] = []
    squares: set[int] = set()  # tensors
    for at in sorted(leading):
        operator = model.operators[at]
        if _is_square(model, operator) or squares.intersection(operator.inputs):
            found.append(at)
            squares.update(operator.outputs)
    return found


def _is_square(model: TFLiteModel, operator: Node) -> bool:
    name = model.operator_name(operator)
    return name == "SQUARED_DIFFERENCE" or (name == "MUL" and operator.inputs[0] == operator.inputs[1])


def _is_last_square(model: TFLiteModel, at: int) -> bool:
    operator = model.operators[at]
    returned = operator.outputs[0] in model.subgraph.outputs and not model.consumers().get(operator.outputs[0])
    return returned and _is_square(model, operator)


def kernels_for_exact_results(model: TFLiteModel, in_float: Mapping[int, str]) -> dict[int, str]:
    """Kernels between float values and operators that need their small results exact: position -> reason for float.

    Args:
        model: float model.
        in_float: position of each operator that computes in float, whatever the samples are -> reason.
    """
    found, asked = _near_zero(model, set(in_float))
    floats, readers, producers = {*in_float, *found}, model.consumers(), model.producers()
    reasons = {}
    for at, operator in enumerate(model.operators):
        spec, result = model.spec(operator), operator.outputs[0]
        if spec.kernel is None or result not in asked or result in model.subgraph.outputs:
            continue
        source = producers.get(operator.inputs[spec.weights.input])
        if source in in_float and floats.issuperset(readers.get(result, [])):
            reasons[at] = f"{spec.name} gives {asked[result]} values that must be exact near 0"
    return reasons


def _near_zero(model: TFLiteModel, in_float: set[int]) -> tuple[dict[int, str], dict[int, str]]:
    """Light operators, and tensors, whose small values must be exact -> the operator that asks for it.

    An operator that adds up two activations and that others read, too (a shortcut), keeps its integers.
    """
    readers = model.consumers()
    asked: dict[int, str] = {}  # tensor -> operator
    found: dict[int, str] = {}
    for at, operator in reversed(list(enumerate(model.operators))):
        spec = model.spec(operator)
        reader = next((asked[index] for index in operator.outputs if index in asked), None)
        if reader is not None and at not in in_float:
            read_by = [to for index in operator.outputs for to in readers.get(index, [])]
            alone = all(to in in_float or to in found for to in read_by) or len(activations_of(model, operator)) == 1
            if not spec.light or not alone:
                continue
            found[at] = reader
        if reader is not None and spec.keeps_small:
            asked.update(dict.fromkeys(operator.inputs, reader))
        asked.update({operator.inputs[position]: spec.name for position in spec.exact_near_zero})
    return found, asked
