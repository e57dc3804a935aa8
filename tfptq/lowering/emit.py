"""Float file + integer weights + activation ranges -> quantized ``.tflite``.

``emit`` is the last step of the pipeline. It knows nothing about how weights and ranges were found.
"""

from dataclasses import dataclass

import numpy as np

from tfptq.lowering.kernel_plan import KernelPlan
from tfptq.lowering.plan import IntegerPlan
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
    kernels: list[KernelPlan],
    *,
    input_type: str = "float32",
    output_type: str = "float32",
) -> EmittedModel:
    """Write integers into a float model.

    Args:
        float_file: float ``.tflite``.
        plan: which operators run on integers.
        kernels: one plan for each of them that has a constant kernel.
        input_type: type of the model's inputs: ``"float32"``, ``"int8"``, ``"uint8"`` or ``"int16"``.
        output_type: the same for the outputs.
    """
    model = TFLiteModel(float_file)
    operators = [model.operators[at] for at in plan.operators]
    written = _Kernels(model)
    constants: dict[int, KernelConstant] = {}
    in_float: dict[int, KernelPlan] = {}
    for item in kernels:
        operator = model.operators[item.binding.operator]
        if item.layout in INTEGER_LAYOUTS:
            constants[id(operator)] = written.integer(operator, item)
        else:
            in_float[id(operator)] = item
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
        placed += [operator] if item is None else written.in_float(operator, item)
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

    def integer(self, operator, item: KernelPlan) -> KernelConstant:
        """Write a kernel for integers."""
        key, weight = (item.binding.kernel, item.layout), item.weight_in_file
        if key not in self._written:
            name = self._name(item.binding.kernel)
            index, scales = add_integer_kernel(self._model, name, weight, item.binding.view, item.layout)
            self._written[key] = self._model.name(index), index, scales
        self.names[item.binding.operator], index, scales = self._written[key]
        if item.layout == "int4":
            self._model.raise_version(operator, self._model.spec(operator).version(4))
        return KernelConstant(index, scales, item.bias)

    def in_float(self, operator, item: KernelPlan) -> list:
        """Write a kernel for a float operator; returns the operators that take the operator's place."""
        kernel_at, bias_at, _ = self._model.spec(operator).weights
        if item.bias is not None:
            operator.inputs += [-1] * (bias_at + 1 - len(operator.inputs))
            name = f"{self._model.name(item.binding.output)}/bias"
            operator.inputs[bias_at] = self._model.add_constant(name, item.bias.astype(np.float32))
        if item.layout == "composite":
            return [self._composite(operator, item, kernel_at)]
        key, before = (item.binding.kernel, item.layout), []
        if key not in self._written:
            before, *self._written[key] = self._unpacked(item)
        self.names[item.binding.operator], operator.inputs[kernel_at] = self._written[key]
        return [*before, operator]

    def _unpacked(self, item: KernelPlan) -> tuple[list, str, int]:
        """Write a kernel in the layout native or inline: operators before the reader, name of codes, kernel."""
        name, weight, view = self._name(item.binding.kernel), item.weight_in_file, item.binding.view
        if item.layout == "native":
            index = add_native_kernel(self._model, name, weight, view)
            return [], self._model.name(index), index
        before, index = add_unpacking(self._model, name, unpacking(weight, view))
        return before, self._model.name(before[0].inputs[0]), index

    def _composite(self, operator, item: KernelPlan, kernel_at: int):
        name, weight = self._name(item.binding.kernel), item.weight_in_file
        parts = unpacking(weight, item.binding.view)
        composite, codes_name = wrap_in_composite(self._model, operator, kernel_at, name, parts, weight)
        self.names[item.binding.operator] = codes_name
        return composite

    def _name(self, kernel: int) -> str:
        """The name of the float kernel, which gives it up."""
        if kernel not in self._float_names:
            self._float_names[kernel] = self._model.release_name(kernel)
        return self._float_names[kernel]
