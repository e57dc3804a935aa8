"""Float skeleton + integer weights + activation ranges -> quantized ``.tflite``.

``emit`` is the last step of the pipeline. It knows nothing about how weights and ranges were found.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.core.affine import ActivationGrid
from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.tflite.activations import Range, assign_grids
from tfptq.tflite.lower import KernelConstant, Lowering, quantization_parameters
from tfptq.tflite.matching import WeightBinding
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.op_rules import reason_to_stay_float


@dataclass(frozen=True, eq=False)
class KernelPlan:
    """What the emitter shall write for one constant kernel.

    Attributes:
        binding: where the kernel stands.
        weight: its codes and scales.
        bias: float32 ``[O]`` real bias, or None.
    """

    binding: WeightBinding
    weight: QuantizedWeight
    bias: np.ndarray | None


@dataclass(frozen=True, eq=False)
class EmittedModel:
    """Result of ``emit``.

    Attributes:
        model: the quantized model, still editable (metadata is attached to it).
        grids: tensor index in the *skeleton* -> its integer grid.
        kernel_names: skeleton index of a kernel -> name of the tensor that holds its codes.
        float_operators: (operator kind, name of its first result, reason) of the operators left float.
    """

    model: TFLiteModel
    grids: dict[int, ActivationGrid]
    kernel_names: dict[int, str]
    float_operators: list[tuple[str, str, str]]


def integer_plan(model: TFLiteModel, skipped: Mapping[int, str], bits: int) -> tuple[list[int], list[tuple]]:
    """Split the operators of a float model into those that run on integers and the others.

    Args:
        model: float model.
        skipped: position of an operator -> reason to leave it float although it has a rule.
        bits: width of the activations.

    Returns:
        Positions of the integer operators, and ``(kind, name of the first result, reason)`` of operators that
        compute on floats and stay so.
    """
    integer, left = [], []
    for at, operator in enumerate(model.operators):
        reason = skipped.get(at) or reason_to_stay_float(model, operator, bits)
        if reason is not None:
            left.append((model.operator_name(operator), model.name(operator.outputs[0]), reason))
        elif any(model.is_float(index) for index in (*operator.inputs, *operator.outputs)):
            integer.append(at)
    return integer, left


def emit(
    skeleton: bytes,
    kernels: list[KernelPlan],
    ranges: Mapping[int, Range],
    *,
    bits: int = 8,
    input_type: str = "float32",
    output_type: str = "float32",
    skipped: Mapping[int, str] | None = None,
) -> EmittedModel:
    """Write integers into a float model.

    Args:
        skeleton: float ``.tflite``.
        kernels: one plan for each operator with a constant kernel that is not skipped.
        ranges: ``(minimum, maximum)`` of every float activation tensor, by tensor index.
        bits: width of the activations on the device, 8 or 16.
        input_type: type of the model's inputs: ``"float32"``, ``"int8"`` or ``"uint8"``.
        output_type: the same for the outputs.
        skipped: positions of operators to leave float -> reason for the report.
    """
    model = TFLiteModel(skeleton)
    positions, left = integer_plan(model, skipped or {}, bits)
    operators = [model.operators[at] for at in positions]
    grids = assign_grids(model, operators, ranges, bits)
    constants: dict[int, KernelConstant] = {}
    written: dict[int, tuple[int, np.ndarray]] = {}
    for plan in kernels:
        kernel = plan.binding.kernel
        if kernel not in written:
            written[kernel] = write_int8_kernel(model, kernel, plan.binding.view, plan.weight)
        constants[id(model.operators[plan.binding.operator])] = KernelConstant(*written[kernel], plan.bias)
    Lowering(model, grids, constants, bits, input_type, output_type).run(operators)
    names = {kernel: model.name(index) for kernel, (index, _) in written.items()}
    model.remove_unused()
    return EmittedModel(model, grids, names, left)


def write_int8_kernel(
    model: TFLiteModel, kernel: int, view: WeightView, weight: QuantizedWeight
) -> tuple[int, np.ndarray]:
    """Write a weight as an ordinary int8 constant that takes over the float kernel's name.

    Returns:
        Index of the new tensor and float32 ``[O]`` scales.

    Raises:
        ValueError: the weight has no exact int8 form.
    """
    form = weight.int8_form()
    if form is None:
        raise ValueError(f"the blocks of {model.name(kernel)!r} have no exact int8 form; choose another layout")
    codes, scales = form
    stored = scales if len(np.unique(scales)) > 1 else scales[:1]
    quantization = quantization_parameters(stored, np.zeros(len(stored), np.int64), view.output_axes[0])
    name = model.name(kernel)
    model.tensors[kernel].name = model.unique_name(f"{name}_float")
    index = model.add_constant(name, view.from_view(codes), quantization)
    model.tensors[index].name = name
    return index, scales
