"""Float file + integer weights + activation ranges -> quantized ``.tflite``.

``emit`` is the last step of the pipeline. It knows nothing about how weights and ranges were found.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tfptq.core.affine import ActivationGrid
from tfptq.float_file.kernel import KernelUse
from tfptq.float_file.matching import WEIGHTED_OPERATORS
from tfptq.lowering.float_fallback import operators_losing_precision
from tfptq.lowering.grids import Range, assign_grids
from tfptq.lowering.op_rules import RULES, SHAPE_READERS, data_inputs, reason_to_stay_float
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.lowering.rewrite import KernelConstant, Lowering
from tfptq.tflite.layouts.choose import INT4_VERSIONS, INTEGER_LAYOUTS
from tfptq.tflite.layouts.constants import add_integer_kernel, add_native_kernel
from tfptq.tflite.layouts.unpacking import add_unpacking, unpacking, wrap_in_composite
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
        kernel_names: position of a float file's operator -> name of the tensor that holds the codes of its kernel; the
            name is unique over all subgraphs.
    """

    model: TFLiteModel
    kernel_names: dict[int, str]


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
    readers, leading = model.consumers(), set()
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
    kernels: Iterable[QuantizedKernel],
    *,
    input_type: str = "float32",
    output_type: str = "float32",
) -> EmittedModel:
    """Write integers into a float model.

    Args:
        float_file: float ``.tflite``.
        plan: which operators run on integers.
        kernels: the kernels of these operators, and of those whose layout computes in float.
        input_type: type of the model's inputs: ``"float32"``, ``"int8"``, ``"uint8"`` or ``"int16"``.
        output_type: the same for the outputs.
    """
    model = TFLiteModel(float_file)
    operators = [model.operators[at] for at in plan.operators]
    written = _Kernels(model)
    constants: dict[int, KernelConstant] = {}
    in_float: dict[int, tuple[QuantizedKernel, KernelUse]] = {}
    for kernel, use in ((it, use) for it in kernels for use in it.uses):
        operator = model.operators[use.operator]
        if kernel.layout in INTEGER_LAYOUTS:
            constants[id(operator)] = written.integer(operator, kernel, use)
        else:
            in_float[id(operator)] = kernel, use
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
    placed = []
    for operator in model.operators:
        item = in_float.get(id(operator))
        placed += [operator] if item is None else written.in_float(operator, *item)
    model.operators[:] = placed
    model.remove_unused()
    return EmittedModel(model, written.names)


class _Kernels:
    """Writes kernels into a model. A kernel that several operators read is written once, but for ``composite``.

    Attributes:
        names: position of an operator in the float file -> name of the tensor of codes.
    """

    def __init__(self, model: TFLiteModel):
        self.names: dict[int, str] = {}
        self._model = model
        self._float_names: dict[int, str] = {}
        self._written: dict[tuple[int, str], tuple] = {}

    def integer(self, operator, kernel: QuantizedKernel, use: KernelUse) -> KernelConstant:
        """Write a kernel for integers."""
        key = use.tensor, kernel.layout
        if key not in self._written:
            name = self._name(use.tensor)
            index, scales = add_integer_kernel(self._model, name, kernel.in_file(use), use.view, kernel.layout)
            self._written[key] = self._model.name(index), index, scales
        self.names[use.operator], index, scales = self._written[key]
        if kernel.layout == "int4":
            self._model.raise_version(operator, INT4_VERSIONS[self._model.operator_name(operator)])
        return KernelConstant(index, scales, use.shifted_bias(kernel.bias_shift))

    def in_float(self, operator, kernel: QuantizedKernel, use: KernelUse) -> list:
        """Write a kernel for a float operator; returns the operators that take the operator's place."""
        kernel_at, bias_at, _ = WEIGHTED_OPERATORS[self._model.operator_name(operator)]
        operator.inputs += [-1] * (bias_at + 1 - len(operator.inputs))
        name = f"{self._model.name(use.output)}/bias"
        operator.inputs[bias_at] = self._model.add_constant(name, use.shifted_bias(kernel.bias_shift))
        if kernel.layout == "composite":
            return [self._composite(operator, kernel, use, kernel_at)]
        key, before = (use.tensor, kernel.layout), []
        if key not in self._written:
            before, *self._written[key] = self._unpacked(kernel, use)
        self.names[use.operator], operator.inputs[kernel_at] = self._written[key]
        return [*before, operator]

    def _unpacked(self, kernel: QuantizedKernel, use: KernelUse) -> tuple[list, str, int]:
        """Write a kernel in the layout native or inline: operators before the reader, name of codes, kernel."""
        name, weight, view = self._name(use.tensor), kernel.in_file(use), use.view
        if kernel.layout == "native":
            index = add_native_kernel(self._model, name, weight, view)
            return [], self._model.name(index), index
        before, index = add_unpacking(self._model, name, unpacking(weight, view))
        return before, self._model.name(before[0].inputs[0]), index

    def _composite(self, operator, kernel: QuantizedKernel, use: KernelUse, kernel_at: int):
        name, weight = self._name(use.tensor), kernel.in_file(use)
        parts = unpacking(weight, use.view)
        composite, codes_name = wrap_in_composite(self._model, operator, kernel_at, name, parts, weight)
        self.names[use.operator] = codes_name
        return composite

    def _name(self, kernel: int) -> str:
        """The name of the float kernel, which gives it up."""
        if kernel not in self._float_names:
            self._float_names[kernel] = self._model.release_name(kernel)
        return self._float_names[kernel]
