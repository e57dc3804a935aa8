"""The window of a convolution in a file: strides, dilations and padding, within limits that no real layer reaches.

The limits keep readers from work and memory that have nothing to do with the size of the file.
"""

from tfptq.base.text import quoted
from tfptq.core.windows import Window
from tfptq.ops.table import spec_of
from tfptq.tflite.checks import VerificationError, require
from tfptq.tflite.kernel_uses import KernelUse
from tfptq.tflite.model_parts import Tensor

#: Largest stride and dilation.
LARGEST_STEP = 2**15
#: Most positions in the output of a TRANSPOSE_CONV.
MOST_POSITIONS = 2**24
_PADDINGS = ("same", "valid")


def kernel_window(use: KernelUse) -> Window | None:
    """The window of the operator of a use; None for those that have none.

    Raises:
        VerificationError: it has no options, or such that make no window.
    """
    operator, codes, options = use.operator, use.codes, use.operator.options
    if spec_of(operator.kind).states:
        return None
    if options is None:
        raise VerificationError(f"tensor {quoted(codes.name)}: the {operator.kind} that reads it has no options")
    if operator.kind == "FULLY_CONNECTED":
        return None
    strides = options.stride_h, options.stride_w
    dilations = getattr(options, "dilation_h_factor", 1), getattr(options, "dilation_w_factor", 1)
    fits = all(1 <= step <= LARGEST_STEP for step in (*strides, *dilations)) and options.padding in (0, 1)
    found = f"strides {strides}, dilations {dilations} and padding {options.padding}"
    require(fits, codes, f"the {operator.kind} that reads it has {found}, which make no window")
    height, width = use.blocks.shape[1:3]
    return Window((height, width), strides, dilations, _PADDINGS[options.padding])


def transposed_size(use: KernelUse) -> tuple[int, int] | None:
    """Height and width of the output of a TRANSPOSE_CONV; None for other operators.

    Raises:
        VerificationError: there are none, or such as no layer has.
    """
    operator, graph = use.operator, use.graph
    if operator.kind != "TRANSPOSE_CONV":
        return None
    size = graph.tensors[operator.inputs[0]] if operator.inputs[0] >= 0 else None
    sizes = graph.tensors[operator.outputs[0]].shape if size is None or size.data is None else _constant(size)
    fits = len(sizes) == 4 and min(sizes) >= 1 and sizes[1] * sizes[2] <= MOST_POSITIONS
    require(fits, use.codes, f"the TRANSPOSE_CONV that reads it has an output of shape {sizes}")
    return sizes[1], sizes[2]


def _constant(size: Tensor) -> tuple[int, ...]:
    """The sizes of a constant; with an open batch they are computed, and those of the output tensor tell the others."""
    return tuple(size.values().tolist()) if size.type == "INT32" and size.shape == (4,) else ()
