"""``native``: FULLY_CONNECTED with INT4 codes and ``BlockwiseQuantization``, whose scales are float16.

Computes on activations that are quantized at run time. The window of ``native`` is what stock kernels were found to
compute (TF 2.21, LiteRT 2.3): outside of it they write zeros or garbage without an error. Inside they still write zeros
under the reference resolver, so ``native`` is only taken when it is asked for by name.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.base.text import quoted
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView, float_scales
from tfptq.tflite.checks import VerificationError, equal_to_metadata, require
from tfptq.tflite.layouts.base import Computes, KernelSite, Layout, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.constants import add_codes
from tfptq.tflite.model_parts import Tensor

if TYPE_CHECKING:
    from tfptq.tflite.kernel_uses import KernelUse

#: What the kernels demand: blocks of a multiple of so many inputs, and so many outputs.
_BLOCK, _OUTPUTS = 32, 4
#: Smallest float16 with full precision, and the largest.
_SMALLEST_HALF, _LARGEST_HALF = 2.0**-14, 65504.0


class Native(Layout):
    """Two codes a byte and float16 scales ``[O, H]``."""

    name = "native"
    serves = (Computes.DYNAMIC,)
    format_name = "Native"
    tensor_types = ("INT4",)
    scales_in_constant = True
    exact_scales = False
    cost = (
        "have the layout native: stock runtimes quantize its activations at run time, and the reference resolver "
        "computes zeros"
    )

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Only the window in which stock kernels compute."""
        (outputs, inputs, _), (_, width) = request.view_shape, request.block_shape
        if request.operator != "FULLY_CONNECTED":
            return f"stock runtimes have blockwise kernels for FULLY_CONNECTED and not for {request.operator}"
        if request.weight_bits > 4:
            return f"its codes have {request.weight_bits} bits, and blockwise kernels read INT4"
        if request.is_shift_scaler:
            return "its shifts span more than the float16 scales of blockwise kernels hold"
        if outputs < _OUTPUTS:
            return f"it has {outputs} outputs, and blockwise kernels write zeros for fewer than {_OUTPUTS}"
        if width % _BLOCK or inputs % width:
            return (
                f"its blocks hold {width} of {inputs} inputs; blockwise kernels compute garbage unless a block holds "
                f"a multiple of {_BLOCK} inputs and blocks divide the inputs evenly"
            )
        return None

    def stored_scales(self, scales: BlockScales) -> BlockScales:
        """Rounded to float16 numbers of full precision."""
        values = scales.values()
        if values.min() < _SMALLEST_HALF or values.max() > _LARGEST_HALF:
            raise ValueError(
                f"block scales from {values.min():.3g} to {values.max():.3g} do not fit float16, which the layout "
                "'native' uses; choose the layout 'inline' or 'composite'"
            )
        return float_scales(values.astype(np.float16).astype(np.float32), scales.block_shape)

    def code_bits(self, weight_bits: int) -> int:
        """Four, also for codes of 2 and 3 bits."""
        return 4

    def stored_bytes(self, weight: QuantizedWeight, view: WeightView) -> int:
        """Codes, and two bytes for each block of each output."""
        return self.code_bytes(weight) + 2 * len(weight.codes) * weight.scales.factors.shape[1]

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """One constant for all uses."""
        written = earlier or self._add(site)
        site.operator.inputs[site.kernel_at] = written.tensor
        return dataclasses.replace(written, operators=[site.operator], reader=site.operator)

    def _add(self, site: KernelSite) -> WrittenKernel:
        rows = _row_values(site.weight.scales, site.view.view_shape[0]).astype(np.float16)
        quantization = schema.QuantizationParametersT()
        scales = site.model.add_constant(f"{site.name}/scales", rows)
        quantization.details = schema.BlockwiseQuantizationT(
            scales=scales,
            zeroPoints=-1,
            blockSize=site.weight.scales.block_shape[1],
        )
        quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
        tensor = add_codes(site.model, site.name, site.view.from_view(site.weight.codes), quantization, 4)
        names = site.model.name(tensor), site.model.name(scales)
        return WrittenKernel(names[0], tensor, [site.operator], site.operator, site.view, block_scales=names[1])

    def block_scales(
        self, tensor: Tensor, constant: Tensor, view: WeightView, block_shape: tuple[int, int]
    ) -> np.ndarray:
        """The first output of each row of blocks."""
        (outputs, inputs, _), (m, n) = view.view_shape, block_shape
        fits = constant.type == "FLOAT16" and constant.shape == (outputs, -(-inputs // n))
        require(fits, tensor, f"the block scales {quoted(constant.name)} are not FLOAT16 of one row for each output")
        return constant.values()[::m].astype(np.float32)

    def check(self, use: KernelUse) -> str:
        """The float16 constant and the size of the blocks."""
        blocks, tensor, graph = use.blocks, use.codes, use.graph
        found = tensor.blockwise
        if found is None:
            raise VerificationError(f"tensor {quoted(tensor.name)}: the layout native needs BlockwiseQuantization")
        size = found.block_size
        require(size == blocks.block_shape[1], tensor, f"block size {size}, expected {blocks.block_shape[1]}")
        require(found.zero_points == -1, tensor, "its blocks have zero points")
        scales, rows = graph.tensors[found.scales], _row_values(blocks.scales(), blocks.outputs)
        fits = scales.type == "FLOAT16" and scales.shape == rows.shape and graph.is_fixed(found.scales)
        require(fits, tensor, f"the block scales {quoted(scales.name)} are no float16 constant of shape {rows.shape}")
        same = np.array_equal(scales.values().astype(np.float32), rows)
        require(same, tensor, "the block scales differ from the metadata")
        return equal_to_metadata(rows.size, "block scale")


def _row_values(scales: BlockScales, outputs: int) -> np.ndarray:
    """float32 ``[O, H]``."""
    return np.repeat(scales.values(), scales.block_shape[0], axis=0)[:outputs]


NATIVE = Native()
