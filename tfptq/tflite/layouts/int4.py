"""``int4``: as ``int8``, two codes a byte, where they fit.

Stock CPU kernels for INT4 convolutions are 7 to 20 times slower than those for INT8.
"""

from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import QuantizedWeight
from tfptq.ops.table import spec_of
from tfptq.tflite.layouts.base import Computes, KernelSite, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.int8 import Int8


class Int4(Int8):
    """Codes of fewer bits than a byte; half a byte each, unless a subclass says otherwise.

    Attributes:
        width: bits of a code in the file.
    """

    serves: tuple[Computes, ...] = (Computes.INTEGER,)
    width = 4
    name = "int4"
    format_name = "Int4"
    tensor_types: tuple[str, ...] = ("INT4",)
    cost: str | None = (
        "hold INT4 weights: half the bytes of int8, but stock CPU kernels run INT4 convolutions 7 to 20 times slower "
        "than INT8; layout='int8' computes the same at full speed"
    )

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Only some kernels read packed codes."""
        problem = super().obstacle(request)
        if problem is not None:
            return problem
        if request.weight_bits > self.width:
            return f"its codes have {request.weight_bits} bits"
        reader = self._reader(request.operator)
        if not spec_of(reader).reads(self.width):
            return f"stock runtimes have no INT{self.width} kernel for {request.operator}"
        if reader == "FULLY_CONNECTED" and request.view_shape[0] == 1:
            return f"tf.lite (2.21) does not load an INT{self.width} {reader} with one output"
        if request.activation_bits != 8:
            return f"INT{self.width} kernels read 8-bit activations only"
        return None

    def depends_on_codes(self, request: LayoutRequest) -> bool:
        """Codes of several blocks in a row are stored times their multipliers; most products do not fit."""
        return request.has_row_blocks

    def obstacle_of(self, weight: QuantizedWeight) -> str | None:
        """A code times its multiplier must fit."""
        form = weight.int8_form()
        if form is None:
            return super().obstacle_of(weight)
        low, high = int(form[0].min(initial=0)), int(form[0].max(initial=0))
        least, most = weight_code_range(self.width)
        if least <= low and high <= most:
            return None
        return (
            f"codes times multipliers go from {low} to {high}, and INT{self.width} from {least} to {most} (with one "
            "scale per output channel they would fit)"
        )

    def code_bits(self, weight_bits: int) -> int:
        """The width of the tensor, also for codes of fewer bits."""
        return self.width

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """As int8, and the operator gets the version that reads packed codes."""
        written = super().write(site, earlier)
        site.model.raise_version(written.reader, site.model.spec(written.reader).version(self.width))
        return written


INT4 = Int4()
