"""Float file + integer weights + activation ranges -> quantized ``.tflite``.

``emit`` is the last step of the pipeline. It knows nothing about how weights and ranges were found.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tfptq.float_file.kernel import KernelUse
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.lowering.rewrite import KernelConstant, Lowering
from tfptq.tflite.layouts.choose import INTEGER_LAYOUTS
from tfptq.tflite.layouts.constants import add_integer_kernel, add_native_kernel
from tfptq.tflite.layouts.unpacking import add_unpacking, unpacking, wrap_in_composite
from tfptq.tflite.model import TFLiteModel


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
            self._model.raise_version(operator, self._model.spec(operator).version(4))
        return KernelConstant(index, scales, use.shifted_bias(kernel.bias_shift))

    def in_float(self, operator, kernel: QuantizedKernel, use: KernelUse) -> list:
        """Write a kernel for a float operator; returns the operators that take the operator's place."""
        kernel_at, bias_at, _ = self._model.spec(operator).weights
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
