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
from tfptq.tflite.matching import WEIGHTED_OPERATORS, WeightBinding
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.op_rules import SHAPE_READERS, reason_to_stay_float


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

    @property
    def weight_in_file(self) -> QuantizedWeight:
        """The weight with the factors that the converter fused into this use of it."""
        factors = self.binding.row_factors
        return self.weight if factors is None else self.weight.times_rows(factors)


@dataclass(frozen=True, eq=False)
class IntegerPlan:
    """Which operators of a skeleton run on integers, and on which grids.

    Attributes:
        operators: positions of the integer operators.
        float_operators: (operator kind, name of its first result, reason) of those that compute on floats and stay so.
        grids: tensor index -> grid of every activation that an integer operator reads or writes.
        bits: width of the activations on the device, 8 or 16.
    """

    operators: tuple[int, ...]
    float_operators: tuple[tuple[str, str, str], ...]
    grids: dict[int, ActivationGrid]
    bits: int


@dataclass(frozen=True, eq=False)
class EmittedModel:
    """Result of ``emit``.

    Attributes:
        model: the quantized model, still editable (metadata is attached to it).
        kernel_names: skeleton index of a kernel -> name of the tensor that holds its codes.
    """

    model: TFLiteModel
    kernel_names: dict[int, str]


def plan_integers(
    model: TFLiteModel, ranges: Mapping[int, Range], bits: int = 8, skipped: Mapping[int, str] | None = None
) -> IntegerPlan:
    """Decide which operators of a float model run on integers, and on which grids.

    Args:
        model: float model.
        ranges: ``(minimum, maximum)`` of every float activation tensor, by tensor index.
        bits: width of the activations on the device, 8 or 16.
        skipped: position of an operator -> reason to leave it float although it has a rule.
    """
    integer, left = [], []
    float_results: set[int] = set()
    for at, operator in enumerate(model.operators):
        reason = (skipped or {}).get(at) or reason_to_stay_float(model, operator, bits)
        if reason is None and _continues_float(model, operator, float_results):
            reason = f"{model.operator_name(operator)} continues a computation in float"
        if reason is not None:
            left.append((model.operator_name(operator), model.name(operator.outputs[0]), reason))
            float_results.update(operator.outputs)
        elif any(model.is_float(index) for index in operator.outputs):
            integer.append(at)
    grids = assign_grids(model, [model.operators[at] for at in integer], ranges, bits)
    return IntegerPlan(tuple(integer), tuple(left), grids, bits)


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


def emit(
    skeleton: bytes,
    plan: IntegerPlan,
    kernels: list[KernelPlan],
    *,
    input_type: str = "float32",
    output_type: str = "float32",
) -> EmittedModel:
    """Write integers into a float model.

    Args:
        skeleton: float ``.tflite``.
        plan: which operators run on integers.
        kernels: one plan for each of them that has a constant kernel.
        input_type: type of the model's inputs: ``"float32"``, ``"int8"`` or ``"uint8"``.
        output_type: the same for the outputs.
    """
    model = TFLiteModel(skeleton)
    operators = [model.operators[at] for at in plan.operators]
    constants: dict[int, KernelConstant] = {}
    written: dict[int, tuple[int, np.ndarray]] = {}
    for item in kernels:
        kernel = item.binding.kernel
        if kernel not in written:
            written[kernel] = write_int8_kernel(model, kernel, item.binding.view, item.weight_in_file)
        constants[id(model.operators[item.binding.operator])] = KernelConstant(*written[kernel], item.bias)
    Lowering(model, plan.grids, constants, plan.bits, input_type, output_type).run(operators)
    names = {kernel: model.name(index) for kernel, (index, _) in written.items()}
    model.remove_unused()
    return EmittedModel(model, names)


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
