"""``int4``: as ``int8``, two codes a byte, where they fit.

Stock CPU kernels for INT4 convolutions are 7 to 20 times slower than those for INT8.
"""

from tfptq.core.blocks import QuantizedWeight
from tfptq.ops.table import spec_of
from tfptq.tflite.layouts.base import KernelSite, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.constants import INT4_RANGE
from tfptq.tflite.layouts.int8 import Int8


class Int4(Int8):
    """Half a byte per code."""

    name = "int4"
    format_name = "Int4"
    tensor_types = ("INT4",)
    policies = ("size",)
    cost = (
        "hold INT4 weights: half the bytes of int8, but stock CPU kernels run INT4 convolutions 7 to 20 times slower "
        "than INT8; layout='speed' or 'int8' computes the same at full speed"
    )

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Only some kernels read INT4."""
        problem = super().obstacle(request)
        if problem is not None:
            return problem
        if request.weight_bits > 4:
            return f"its codes have {request.weight_bits} bits"
        if spec_of(request.operator).int4 is None:
            return f"stock runtimes have no INT4 kernel for {request.operator}"
        if request.activation_bits != 8:
            return "INT4 kernels read 8-bit activations only"
        return None

    def depends_on_codes(self, request: LayoutRequest) -> bool:
        """Codes of several blocks in a row are stored times their multipliers; most products do not fit."""
        return request.has_row_blocks

    def obstacle_of(self, weight: QuantizedWeight) -> str | None:
        """A code times its multiplier must fit 4 bits."""
        form = weight.int8_form()
        if form is None:
            return super().obstacle_of(weight)
        low, high = int(form[0].min(initial=0)), int(form[0].max(initial=0))
        if INT4_RANGE[0] <= low and high <= INT4_RANGE[1]:
            return None
        return (
            f"codes times multipliers go from {low} to {high}, and INT4 from {INT4_RANGE[0]} to {INT4_RANGE[1]} (with "
            "one scale per output channel they would fit)"
        )

    def code_bits(self, weight_bits: int) -> int:
        """Four, also for codes of 2 and 3 bits."""
        return 4

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """As int8, and the operator gets the version that reads INT4."""
        written = super().write(site, earlier)
        site.model.raise_version(site.operator, site.model.spec(site.operator).version(4))
        return written


INT4 = Int4()
