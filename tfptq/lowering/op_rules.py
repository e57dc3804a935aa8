"""Which operators run on integers, and what that asks of their grids.

The rules follow LiteRT's 8-bit quantization specification. For 16-bit activations (16x8) the fixed output grids
are the symmetric ones of that mode. An operator that has no rule, or does not meet its rule's condition, stays
float between DEQUANTIZE and QUANTIZE.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tfptq.core.affine import ActivationGrid
from tfptq.float_file.matching import WEIGHTED_OPERATORS
from tfptq.tflite.model import TFLiteModel

#: Output range of operators whose output grid the specification fixes: name -> {activation bits: grid}.
FIXED_OUTPUT_GRIDS = {
    "SOFTMAX": {8: ActivationGrid(1 / 256, -128), 16: ActivationGrid(1 / 32768, 0, 16)},
    "LOGISTIC": {8: ActivationGrid(1 / 256, -128), 16: ActivationGrid(1 / 32768, 0, 16)},
    "TANH": {8: ActivationGrid(1 / 128, 0), 16: ActivationGrid(1 / 32768, 0, 16)},
    "L2_NORMALIZATION": {8: ActivationGrid(1 / 128, 0)},
    "LOG_SOFTMAX": {8: ActivationGrid(16 / 256, 127)},
}


#: Operators that look at the shape of a tensor only; they read whichever form of it there is.
SHAPE_READERS = ("SHAPE", "RANK")


@dataclass(frozen=True)
class IntegerRule:
    """How an operator runs on integers.

    Attributes:
        data: positions of the inputs that carry activations; None for all.
        share: ``"no"``: inputs and outputs have grids of their own; ``"chain"``: the output has the grid of the
            one input; ``"join"``: the output and all inputs have one grid, brought about by requantization where
            sharing would cost an input accuracy.
        version: least operator version for int8.
        version_16: least operator version for int16, or None when there is no 16x8 kernel.
        symmetric: positions of the inputs that need the zero point 0.
    """

    data: tuple[int, ...] | None = (0,)
    share: str = "no"
    version: int = 2
    version_16: int | None = None
    symmetric: tuple[int, ...] = ()


RULES: dict[str, IntegerRule] = {
    # Kernels. The constant kernel and bias are not "data": the emitter quantizes them.
    "CONV_2D": IntegerRule((0,), "no", 3, 4),
    "DEPTHWISE_CONV_2D": IntegerRule((0,), "no", 3, 5),
    "FULLY_CONNECTED": IntegerRule((0,), "no", 5, 7),
    "TRANSPOSE_CONV": IntegerRule((2,), "no", 3, 3),
    # XNNPACK in TF 2.21 takes the second factor's zero point for 0 (also in the converter's own files).
    "BATCH_MATMUL": IntegerRule((0, 1), "no", 2, 3, symmetric=(1,)),
    # Element by element.
    "ADD": IntegerRule(None, "no", 2, 3),
    "SUB": IntegerRule(None, "no", 2, 5),
    "MUL": IntegerRule(None, "no", 2, 4),
    "SQUARED_DIFFERENCE": IntegerRule(None, "no", 2),
    "MAXIMUM": IntegerRule(None, "join", 2, 3),
    "MINIMUM": IntegerRule(None, "join", 2, 3),
    "RELU": IntegerRule((0,), "no", 2, 3),
    "RELU6": IntegerRule((0,), "no", 2, 3),
    "RELU_N1_TO_1": IntegerRule((0,), "no", 1),
    "LEAKY_RELU": IntegerRule((0,), "no", 2, 2),
    "PRELU": IntegerRule((0, 1), "no", 1),
    "HARD_SWISH": IntegerRule((0,), "no", 1),
    "ELU": IntegerRule((0,), "no", 1),
    "GELU": IntegerRule((0,), "no", 2),
    "LOGISTIC": IntegerRule((0,), "no", 2, 3),
    "TANH": IntegerRule((0,), "no", 2, 3),
    "SOFTMAX": IntegerRule((0,), "no", 2, 3),
    "LOG_SOFTMAX": IntegerRule((0,), "no", 2),
    "L2_NORMALIZATION": IntegerRule((0,), "no", 2),
    # Over positions.
    "AVERAGE_POOL_2D": IntegerRule((0,), "chain", 2, 3),
    "MAX_POOL_2D": IntegerRule((0,), "chain", 2, 3),
    "MEAN": IntegerRule((0,), "no", 2, 3),
    "SUM": IntegerRule((0,), "no", 2, 3),
    "REDUCE_MAX": IntegerRule((0,), "chain", 2, 3),
    "REDUCE_MIN": IntegerRule((0,), "chain", 2, 3),
    "RESIZE_BILINEAR": IntegerRule((0,), "chain", 2, 4),
    "RESIZE_NEAREST_NEIGHBOR": IntegerRule((0,), "chain", 2, 4),
    # Moving values around.
    "CONCATENATION": IntegerRule(None, "join", 2, 3),
    "PACK": IntegerRule(None, "join", 2, 4),
    "UNPACK": IntegerRule((0,), "chain", 2, 4),
    "RESHAPE": IntegerRule((0,), "chain", 1, 1),
    "SQUEEZE": IntegerRule((0,), "chain", 1, 2),
    "EXPAND_DIMS": IntegerRule((0,), "chain", 1, 1),
    "TRANSPOSE": IntegerRule((0,), "chain", 2, 5),
    "PAD": IntegerRule((0,), "chain", 2, 3),
    "PADV2": IntegerRule((0, 2), "join", 2, 3),
    "MIRROR_PAD": IntegerRule((0,), "chain", 2, 3),
    "STRIDED_SLICE": IntegerRule((0,), "chain", 2, 4),
    "SLICE": IntegerRule((0,), "chain", 2, 4),
    "SPLIT": IntegerRule((1,), "chain", 2, 4),
    "SPLIT_V": IntegerRule((0,), "chain", 2, 2),
    "GATHER": IntegerRule((0,), "chain", 2, 4),
    "DEPTH_TO_SPACE": IntegerRule((0,), "chain", 1),
    "SPACE_TO_DEPTH": IntegerRule((0,), "chain", 2),
    "SPACE_TO_BATCH_ND": IntegerRule((0,), "chain", 2, 4),
    "BATCH_TO_SPACE_ND": IntegerRule((0,), "chain", 2, 4),
    "TILE": IntegerRule((0,), "chain", 2),
}


def data_inputs(model: TFLiteModel, operator) -> list[int]:
    """Positions of the float32 inputs of an operator that carry activations or constants in their place."""
    rule = RULES[model.operator_name(operator)]
    positions = range(len(operator.inputs)) if rule.data is None else rule.data
    return [at for at in positions if at < len(operator.inputs) and operator.inputs[at] >= 0]


def reason_to_stay_float(model: TFLiteModel, operator, bits: int) -> str | None:
    """Why an operator cannot run on integers, or None when it can.

    Args:
        model: float model.
        operator: one of its operators.
        bits: width of the activations, 8 or 16.
    """
    name = model.operator_name(operator)
    if name in SHAPE_READERS or not any(model.is_float(index) for index in (*operator.inputs, *operator.outputs)):
        return None
    rule = RULES.get(name)
    if rule is None:
        return f"{name} has no integer rule"
    if bits == 16 and rule.version_16 is None:
        return f"{name} has no kernel for 16-bit activations"
    inputs = [operator.inputs[at] for at in data_inputs(model, operator)]
    if not all(model.is_float(index) for index in (*inputs, *operator.outputs)):
        return f"{name} mixes float32 with other types"
    if all(model.is_constant(index) for index in inputs):
        return f"{name} reads values of constants only"
    condition = _CONDITIONS.get(name)
    return condition(model, operator) if condition else None


def least_version(name: str, bits: int) -> int:
    """Least operator version for integer activations of a width."""
    rule = RULES[name]
    return rule.version_16 if bits == 16 else rule.version


def _constant_kernel(model: TFLiteModel, operator) -> str | None:
    name = model.operator_name(operator)
    if model.is_constant(operator.inputs[WEIGHTED_OPERATORS[name].kernel]):
        return None
    return f"{name} with a kernel that is computed"


def _constant_slope(model: TFLiteModel, operator) -> str | None:
    return None if model.is_constant(operator.inputs[1]) else "PRELU with a slope that is computed"


def _few_dimensions(model: TFLiteModel, operator) -> str | None:
    if len(model.shape(operator.inputs[0])) <= 4:
        return None
    return f"{model.operator_name(operator)} of more than 4 dimensions"


_CONDITIONS: dict[str, Callable] = {
    **dict.fromkeys(WEIGHTED_OPERATORS, _constant_kernel),
    "PRELU": _constant_slope,
    "SQUARED_DIFFERENCE": _few_dimensions,
}
