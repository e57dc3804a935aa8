"""``weights_only``: constant -> DEQUANTIZE -> the operator, in float.

XNNPACK unpacks INT8 constants once, when it loads a file, and computes as on float weights. Codes of up to 4 bits lie
in INT4, which stock kernels unpack at every call.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.ops.table import spec_of
from tfptq.tflite.checks import VerificationError, require
from tfptq.tflite.layouts.base import Computes, KernelSite, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.int8 import Int8

if TYPE_CHECKING:
    from tfptq.tflite.kernel_uses import KernelUse
    from tfptq.tflite.model_parts import Operator, Subgraph

#: Least version of DEQUANTIZE that knows a scale per channel.
_PER_CHANNEL = 5


class WeightsOnly(Int8):
    """Codes with a scale per output channel, as ``int8``, and a DEQUANTIZE."""

    name = "weights_only"
    serves = (Computes.FLOAT,)
    format_name = "WeightsOnly"
    tensor_types = ("INT8", "INT4")

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Only a scale per channel."""
        if request.has_row_blocks:
            return f"its rows have several scales, and {self.name} has one per output channel"
        return None

    def code_bits(self, weight_bits: int) -> int:
        """Four where the codes fit."""
        return 4 if weight_bits <= 4 else 8

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """The first use unpacks the kernel for all."""
        if earlier is not None:
            site.operator.inputs[site.kernel_at] = earlier.tensor
            return dataclasses.replace(earlier, operators=[site.operator], reader=site.operator, view=site.view)
        written, model = self._add(site), site.model
        kernel = model.add_activation_like(written.tensor, f"{site.name}/float", schema.TensorType.FLOAT32)
        code_bits = self.code_bits(site.weight.bits)
        version = max(_PER_CHANNEL, spec_of("DEQUANTIZE").version(code_bits))
        unpack = model.new_operator("DEQUANTIZE", [written.tensor], [kernel], version)
        site.operator.inputs[site.kernel_at] = kernel
        return dataclasses.replace(written, tensor=kernel, operators=[unpack, site.operator])

    def _tensor_scales(self, scales: np.ndarray) -> np.ndarray:
        """All of them: one for an axis of several is refused by DEQUANTIZE."""
        return scales

    def codes_of(self, graph: Subgraph, kernel: int) -> int | None:
        """What the DEQUANTIZE reads."""
        unpack = _unpacking(graph, kernel)
        return None if unpack is None else unpack.inputs[0]

    def check_way(self, use: KernelUse) -> None:
        """A DEQUANTIZE in front of the operator, and nothing else."""
        unpack = _unpacking(use.graph, use.kernel)
        if unpack is None:
            raise VerificationError(f"tensor {use.codes.name!r}: no DEQUANTIZE leads from it to its operator")
        kernel = use.graph.tensors[use.kernel]
        fits = kernel.type == "FLOAT32" and kernel.shape == use.codes.shape and kernel.data is None
        require(fits, use.codes, f"the DEQUANTIZE behind it writes {kernel.type} {kernel.shape}")
        before = use.graph.writers[use.kernel][0] < use.position
        require(before, use.codes, "the DEQUANTIZE behind it runs too late")


def _unpacking(graph: Subgraph, kernel: int) -> Operator | None:
    """The DEQUANTIZE that writes a kernel."""
    found = graph.producer(kernel)
    one_each = found is not None and len(found.inputs) == 1 == len(found.outputs) and found.inputs[0] >= 0
    return found if found is not None and found.kind == "DEQUANTIZE" and one_each else None


WEIGHTS_ONLY = WeightsOnly()
