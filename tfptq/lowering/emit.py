"""Float file + integer weights + activation ranges -> quantized ``.tflite``.

``emit`` is the last step of the pipeline. It knows nothing about how weights and ranges were found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tfptq.core.affine import ActivationGrid
from tfptq.float_file.matching import WEIGHTED_OPERATORS
from tfptq.lowering.float_fallback import operators_losing_precision
from tfptq.lowering.grids import Range, assign_grids
from tfptq.lowering.kernel_plan import KernelPlan
from tfptq.lowering.op_rules import RULES, SHAPE_READERS, data_inputs, reason_to_stay_float
from tfptq.lowering.rewrite import KernelConstant, Lowering
from tfptq.tflite.layouts import Computes, KernelUse, WrittenKernel
from tfptq.tflite.model import TFLiteModel

#: Operators that a variance is made of.
_SUMMING = ("SQUARED_DIFFERENCE", "MUL", "MEAN", "SUM", "ADD", "SUB", "MAXIMUM")


@dataclass(frozen=True, eq=False)
class IntegerPlan:
    """Which operators of a float file run on integers, and on which grids.

    Attributes:
        operators: positions of the integer operators.
        float_operators: (operator kind, name of its first result, reason) of those that compute on floats and stay so.
        grids: tensor index -> grid of every activation that an integer operator reads or writes.
        bits: width of the activations on the device, 8 or 16.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values far beyond their grids.
    """

    operators: tuple[int, ...]
    float_operators: tuple[tuple[str, str, str], ...]
    grids: dict[int, ActivationGrid]
    bits: int
    clipped: Mapping[int, Range] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EmittedModel:
    """Result of ``emit``.

    Attributes:
        model: the quantized model, still editable (metadata is attached to it).
        kernels: position of a float file's operator -> what was written for its kernel. Names are still good; indexes
            of tensors are not.
    """

    model: TFLiteModel
    kernels: dict[int, WrittenKernel]


def plan_integers(
    model: TFLiteModel,
    ranges: Mapping[int, Range],
    bits: int = 8,
    skipped: Mapping[int, str] | None = None,
    clipped: Mapping[int, Range] | None = None,
) -> IntegerPlan:
    """Decide which operators of a float model run on integers, and on which grids.

    Args:
        model: float model.
        ranges: ``(minimum, maximum)`` of every float activation tensor, by tensor index; also of constants of which
            only that part counts.
        bits: width of the activations on the device, 8 or 16.
        skipped: position of an operator -> reason to leave it float although it has a rule.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values beyond their ranges.
    """
    integer, reasons = [], {}
    float_results: set[int] = set()
    for at, operator in enumerate(model.operators):
        reason = (skipped or {}).get(at) or reason_to_stay_float(model, operator, bits)
        if reason is None and _continues_float(model, operator, float_results):
            reason = f"{model.operator_name(operator)} continues a computation in float"
        if reason is not None:
            reasons[at] = reason
            float_results.update(operator.outputs)
        elif any(model.is_float(index) for index in operator.outputs):
            integer.append(at)
    for at in _lead_to_float(model, integer, reasons):
        integer.remove(at)
        reasons[at] = f"{model.operator_name(model.operators[at])} moves values to a computation in float"
    for at in _squares_for_float(model, integer, reasons):
        integer.remove(at)
        reasons[at] = f"{model.operator_name(model.operators[at])} gives a variance to a computation in float"
    left = ((model.operators[at], reasons[at]) for at in sorted(reasons))
    named = tuple((model.operator_name(op), model.name(op.outputs[0]), reason) for op, reason in left)
    grids = assign_grids(model, [model.operators[at] for at in integer], ranges, bits)
    unfit = operators_losing_precision(model, integer, grids, ranges, bits)
    if unfit:  # what they were to share grids with gets others then
        return plan_integers(model, ranges, bits, {**(skipped or {}), **unfit}, clipped)
    return IntegerPlan(tuple(integer), named, grids, bits, clipped or {})


def _continues_float(model: TFLiteModel, operator, float_results: set[int]) -> bool:
    """Whether a light operator reads nothing but results of float operators.

    Quantizing between two float operators (the 1 + exp(x) inside log(1 + exp(x)), say) costs accuracy and time and
    brings nothing; so a float computation goes on until it meets a kernel or an integer value.
    """
    name = model.operator_name(operator)
    if name in WEIGHTED_OPERATORS or name in SHAPE_READERS:
        return False
    read = [index for index in operator.inputs if model.is_float(index) and not model.is_constant(index)]
    return bool(read) and all(index in float_results for index in read)


def _lead_to_float(model: TFLiteModel, integer: list[int], in_float: Mapping[int, str]) -> list[int]:
    """Operators that only move values of a float input of the model on to float operators.

    Rounding the values on the way (in the EXPAND_DIMS before a float Conv1D, say) would cost accuracy for nothing.
    """
    readers, producers, found = model.consumers(), model.producers(), set()
    for at in reversed(integer):
        operator = model.operators[at]
        moves = RULES[model.operator_name(operator)].share == "chain"
        if moves and all(
            index not in model.subgraph.outputs and all(to in in_float or to in found for to in readers.get(index, []))
            for index in operator.outputs
        ):
            found.add(at)
    for at in sorted(found):
        source = model.operators[at].inputs[data_inputs(model, model.operators[at])[0]]
        if producers.get(source, at) in set(integer) - found:
            found.discard(at)
    return sorted(found)


def _squares_for_float(model: TFLiteModel, integer: list[int], in_float: Mapping[int, str]) -> list[int]:
    """Squares, and what sums them up, where nothing but float operators reads the outcome.

    The variance in a normalization is one, whose root has no integer kernel. Squares need twice the bits of their
    roots: 8 bits for them would leave 4 to the standard deviation.
    """
    readers = model.consumers()
    leading: set[int] = set()
    for at in reversed(integer):
        operator = model.operators[at]
        result = operator.outputs[0]
        if model.operator_name(operator) not in _SUMMING or result in model.subgraph.outputs:
            continue
        if leading.issuperset(to for to in readers.get(result, []) if to not in in_float):
            leading.add(at)
    found: set[int] = set()
    squares: set[int] = set()  # tensors
    for at in sorted(leading):
        operator = model.operators[at]
        if _is_square(model, operator) or squares.intersection(operator.inputs):
            found.add(at)
            squares.update(operator.outputs)
    return sorted(found)


def _is_square(model: TFLiteModel, operator) -> bool:
    name = model.operator_name(operator)
    return name == "SQUARED_DIFFERENCE" or (name == "MUL" and operator.inputs[0] == operator.inputs[1])


def emit(
    float_file: bytes,
    plan: IntegerPlan,
    kernels: list[KernelPlan],
    *,
    input_type: str = "float32",
    output_type: str = "float32",
) -> EmittedModel:
    """Write integers into a float model.

    Args:
        float_file: what the plan was made for.
        plan: which operators run on integers.
        kernels: one plan for each of them that has a constant kernel, and for those whose layouts compute in float.
        input_type: type of the model's inputs: ``"float32"``, ``"int8"``, ``"uint8"`` or ``"int16"``.
        output_type: the same for the outputs.
    """
    model = TFLiteModel(float_file)
    writer = _KernelWriter(model)
    on_integers = [item for item in kernels if item.layout.computes is Computes.INTEGER]
    others = [item for item in kernels if item.layout.computes is not Computes.INTEGER]
    in_float = {id(model.operators[item.binding.operator]): item for item in others}
    placed = {id(operator): [operator] for operator in model.operators}
    constants: dict[int, KernelConstant] = {}
    for item in on_integers:
        operator = model.operators[item.binding.operator]
        written = writer.write(operator, item)
        placed[id(operator)] = written.operators
        constants[id(written.reader)] = KernelConstant(written.tensor, _required(written.scales), item.bias)
    operators = [new for at in plan.operators for new in placed[id(model.operators[at])]]
    model.operators[:] = [new for operator in model.operators for new in placed[id(operator)]]
    lowering = Lowering(
        model=model,
        grids=plan.grids,
        kernels=constants,
        bits=plan.bits,
        input_type=input_type,
        output_type=output_type,
        clipped=plan.clipped,
    )
    lowering.run(operators)
    model.operators[:] = [new for operator in model.operators for new in writer.in_float(operator, in_float)]
    model.remove_unused()
    return EmittedModel(model, writer.written)


def _required(scales: np.ndarray | None) -> np.ndarray:
    if scales is None:
        raise ValueError("a layout on integers wrote a kernel without scales")
    return scales


class _KernelWriter:
    """Writes kernels into a model, each as its layout says. What several operators read may be written once.

    Attributes:
        written: position of an operator in the float file -> what was written for its kernel.
    """

    def __init__(self, model: TFLiteModel):
        self.written: dict[int, WrittenKernel] = {}
        self._model = model
        self._float_names: dict[int, str] = {}
        self._first: dict[tuple[int, str], WrittenKernel] = {}

    def write(self, operator, item: KernelPlan) -> WrittenKernel:
        """Write the kernel of one operator."""
        kernel_at = WEIGHTED_OPERATORS[self._model.operator_name(operator)].kernel
        name, view = self._name(item.binding.kernel), item.binding.view
        use = KernelUse(self._model, operator, kernel_at, name, item.weight_in_file, view)
        key = (item.binding.kernel, item.layout.name)
        written = item.layout.write(use, self._first.get(key))
        self._first.setdefault(key, written)
        self.written[item.binding.operator] = written
        return written

    def in_float(self, operator, items: Mapping[int, KernelPlan]) -> list:
        """What takes the place of an operator, if its kernel is among those (by its identity) that stay float."""
        item = items.get(id(operator))
        if item is None:
            return [operator]
        if item.bias is not None:
            bias_at = WEIGHTED_OPERATORS[self._model.operator_name(operator)].bias
            operator.inputs += [-1] * (bias_at + 1 - len(operator.inputs))
            name = f"{self._model.name(item.binding.output)}/bias"
            operator.inputs[bias_at] = self._model.add_constant(name, item.bias.astype(np.float32))
        return self.write(operator, item).operators

    def _name(self, kernel: int) -> str:
        """The name of the float kernel, which gives it up."""
        if kernel not in self._float_names:
            self._float_names[kernel] = self._model.release_name(kernel)
        return self._float_names[kernel]
