"""``int8``: an ordinary int8 constant with a scale per output channel, codes times integer multipliers.

Runs on every kernel and delegate at full speed. Blocks of ``m x n`` channels with the multipliers ``r[v, h]`` and one
scale ``s[v]`` for each row are stored as ``q * r`` with the scale ``s``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tfptq.base.text import counted, quoted
from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.ops.table import spec_of
from tfptq.tflite.checks import VerificationError, equal_to_metadata, float_bits, require
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.layouts.base import Computes, KernelSite, Layout, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.constants import add_codes
from tfptq.tflite.model import quantization_parameters
from tfptq.tflite.model_parts import Tensor

if TYPE_CHECKING:
    from tfptq.tflite.kernel_uses import KernelUse
    from tfptq.tflite.tensor_blocks import TensorBlocks


class Int8(Layout):
    """One byte per code."""

    name = "int8"
    serves: tuple[Computes, ...] = (Computes.INTEGER, Computes.DYNAMIC)
    format_name = "Int8"
    tensor_types: tuple[str, ...] = ("INT8",)

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Float scales inside a row are no multiples of one scale; some operators do not quantize activations."""
        quantizes = request.computes is Computes.DYNAMIC and Computes.DYNAMIC in self.serves
        if quantizes and spec_of(self._reader(request.operator)).dynamic is None:
            return f"stock kernels of {request.operator} that quantize activations at run time are slower than float"
        if request.has_row_blocks and request.scale_kind == "float":
            return (
                f"it has float scales for every {request.block_shape[1]} of its {request.view_shape[1]} input "
                f"channels, and {self.name} has one scale per output channel (scaler='integer' or 'shift' would fit)"
            )
        return None

    def obstacle_of(self, weight: QuantizedWeight) -> str | None:
        """A code times its multiplier must fit int8."""
        return "its blocks have no exact int8 form" if weight.int8_form() is None else None

    def code_bits(self, weight_bits: int) -> int:
        """Eight, whatever the width of the codes."""
        return 8

    def stored_bytes(self, weight: QuantizedWeight, view: WeightView) -> int:
        """Codes and float32 scales, one where all are equal."""
        _, scales = self._form(weight, "a kernel")
        return self.code_bytes(weight) + 4 * len(self._tensor_scales(scales))

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """One constant for all uses."""
        written = earlier or self._add(site)
        site.operator.inputs[site.kernel_at] = written.tensor
        return dataclasses.replace(written, operators=[site.operator], reader=site.operator)

    def _reader(self, operator: str) -> str:
        """Kind of the operator that reads the kernel in the file."""
        return operator

    def _add(self, site: KernelSite) -> WrittenKernel:
        codes, scales = self._form(site.weight, repr(site.name))
        stored = self._tensor_scales(scales)
        quantization = quantization_parameters(stored, np.zeros(len(stored), np.int64), site.view.output_axes[0])
        code_bits = self.code_bits(site.weight.bits)
        values = self._in_tensor_shape(site.view.from_view(codes))
        tensor = add_codes(site.model, site.name, values, quantization, code_bits)
        return WrittenKernel(site.model.name(tensor), tensor, [site.operator], site.operator, site.view, scales)

    def _tensor_scales(self, scales: np.ndarray) -> np.ndarray:
        """Scales ``[O]`` as they stand in the tensor: one where all are equal."""
        return scales if len(np.unique(scales)) > 1 else scales[:1]

    def _in_tensor_shape(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel in the shape of the tensor."""
        return kernel

    @staticmethod
    def _form(weight: QuantizedWeight, what: str) -> tuple[np.ndarray, np.ndarray]:
        form = weight.int8_form()
        if form is None:
            raise ValueError(f"the blocks of {what} have no exact int8 form; choose another layout")
        return form

    def read_codes(self, blocks: TensorBlocks, tensor: Tensor) -> np.ndarray:
        """``q = stored / r``, which must be exact."""
        stored = super().read_codes(blocks, tensor)
        if blocks.factors.shape[1] == 1:
            return stored
        multipliers = blocks.scales().expand(blocks.outputs, blocks.inputs, blocks.multipliers())  # [O, I, 1]
        codes, rest = np.divmod(blocks.view.to_view(stored).astype(np.int32), multipliers)
        if rest.any():
            raise FormatError(
                f"layer {quoted(blocks.layer)}: {quoted(blocks.tensor_name)} is not a multiple of its block multipliers"
            )
        return blocks.view.from_view(codes.astype(np.int8))

    def check(self, use: KernelUse) -> str:
        """Scales of the rows, bit for bit."""
        blocks, tensor = use.blocks, use.codes
        expected, found = blocks.row_scales(), tensor.scale
        rows = counted(blocks.outputs, "row")
        require(found.size in (1, blocks.outputs), tensor, f"{counted(found.size, 'scale')} for {rows}")
        if found.size > 1:
            axis = tensor.quantized_dimension
            require(axis == blocks.output_axis, tensor, f"scales along axis {axis}, expected {blocks.output_axis}")
        differ = np.flatnonzero(float_bits(np.broadcast_to(found, expected.shape)) != float_bits(expected))
        if differ.size:
            channel = int(differ[0])
            number = f"{counted(differ.size, 'scale')} {'differs' if differ.size == 1 else 'differ'} from the metadata"
            raise VerificationError(
                f"tensor {quoted(tensor.name)}: {number}, the first in output channel {channel}: "
                f"{found[channel % found.size]!s} in the file, {expected[channel]!s} by the metadata"
            )
        return equal_to_metadata(found.size, "scale")


INT8 = Int8()
