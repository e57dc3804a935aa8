"""Check how an operator reads a described kernel: axes, types, and the whole way from the codes to the operator."""

import math

from tfptq.ops.table import FUSED_FUNCTIONS
from tfptq.tflite.checks import require
from tfptq.tflite.kernel_uses import KernelUse
from tfptq.tflite.kernel_window import kernel_window, transposed_size
from tfptq.tflite.layouts import Computes
from tfptq.tflite.model_parts import TYPE_BITS, Tensor

#: Type of the activations -> type of the bias.
_BIAS_TYPES = {"INT8": "INT32", "INT16": "INT64", "FLOAT32": "FLOAT32"}


def check_use(use: KernelUse) -> None:
    """Check one use of a kernel, in a time that depends neither on the kernel nor on the file.

    Raises:
        VerificationError: the operator reads another kernel than the description says.
    """
    blocks, codes, layout = use.blocks, use.codes, use.blocks.layout
    require(use.blocks.subgraph in use.model.callers, codes, "it stands in a subgraph that nothing runs")
    require(codes.data is not None, codes, "it is not a constant")
    require(codes.oddity is None, codes, f"it {codes.oddity}")
    require(use.graph.is_fixed(blocks.tensor), codes, "an operator or an input of its subgraph overwrites it")
    room = TYPE_BITS.get(codes.type, 0)
    require(blocks.bits <= room, codes, f"codes of {blocks.bits} bits do not fit {codes.type}")
    obstacle = layout.operator_obstacle(use.operator.kind, blocks.view)
    require(obstacle is None, codes, f"{obstacle}")
    layout.check_way(use)
    _check_operator(use)
    kernel_window(use)
    transposed_size(use)


def _check_operator(use: KernelUse) -> None:
    """Types of what the operator reads beside the kernel, and its bias."""
    graph, operator, codes, place = use.graph, use.operator, use.codes, use.place
    # Kernels of layouts on integers may also quantize float activations themselves.
    allowed = tuple(_BIAS_TYPES) if Computes.INTEGER in use.blocks.layout.serves else ("FLOAT32",)
    source = operator.input(place.input)
    require(source >= 0 and len(operator.outputs) == 1, codes, f"the {operator.kind} reads or writes nothing else")
    kind = graph.tensors[source].type
    require(kind in allowed, codes, f"the {operator.kind} reads it with activations of {kind}")
    result = graph.tensors[operator.outputs[0]]
    require(result.type == kind, codes, f"the {operator.kind} makes {result.type} of activations of {kind}")
    fused = getattr(operator.options, "fused_activation_function", 0)
    require(fused == 0 or fused in FUSED_FUNCTIONS, codes, f"the {operator.kind} has the fused function {fused}")
    for end in (graph.tensors[source], result) if kind != "FLOAT32" else ():
        _check_grid(end)
    weights_format = getattr(operator.options, "weights_format", 0)
    require(weights_format == 0, codes, f"the {operator.kind} reads it in the shuffled format {weights_format}")
    index = operator.input(place.bias)
    if index < 0:
        return
    bias, outputs = graph.tensors[index], use.blocks.outputs
    wanted = _BIAS_TYPES[kind]
    fits = bias.type == wanted and graph.is_fixed(index) and math.prod(bias.shape) == outputs
    require(fits, bias, f"the bias is {bias.type} {bias.shape}, expected a constant of {outputs} {wanted}")


def _check_grid(tensor: Tensor) -> None:
    """An activation on integers: one scale, and a zero point that is a code, or 0 in 16 bits."""
    require(tensor.scale.size == 1, tensor, f"{tensor.scale.size} scales in an activation, expected one")
    require(0 < tensor.scale[0] < math.inf, tensor, f"its scale is {tensor.scale[0]}")
    low, high = (-128, 127) if tensor.type == "INT8" else (0, 0)
    require(low <= tensor.zero_point[0] <= high, tensor, f"its zero point is {tensor.zero_point[0]}")
