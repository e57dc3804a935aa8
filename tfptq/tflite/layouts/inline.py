"""``inline``: constant -> DEQUANTIZE -> MUL(block scales) -> RESHAPE -> the operator, in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.tflite.checks import VerificationError, equal_to_metadata, require
from tfptq.tflite.layouts.base import Computes, KernelSite, Layout, WrittenKernel
from tfptq.tflite.layouts.unpacking import add_unpacking, unpacking
from tfptq.tflite.model_reader import Operator, Subgraph, Tensor

if TYPE_CHECKING:
    from tfptq.tflite.tensor_blocks import TensorBlocks


class Inline(Layout):
    """Codes that operators of the file itself turn into float weights."""

    name = "inline"
    computes = Computes.FLOAT
    format_name = "Inline"
    tensor_types = ("INT4", "INT8")
    keeps_shape = False
    cost = "have the layout inline: their operators compute in float, on kernels that are unpacked at run time"

    def code_bits(self, weight_bits: int) -> int:
        """Four where the codes fit."""
        return 4 if weight_bits <= 4 else 8

    def stored_bytes(self, weight: QuantizedWeight, view: WeightView) -> int:
        """Codes and float32 factors."""
        return self.code_bytes(weight) + 4 * unpacking(weight, view).factors.size

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """The first use unpacks the kernel for all."""
        if earlier is None:
            parts = unpacking(site.weight, site.view)
            before, tensor = add_unpacking(site.model, site.name, parts, self.code_bits(site.weight.bits))
            codes = site.model.name(before[0].inputs[0])
        else:
            before, tensor, codes = [], earlier.tensor, earlier.codes
        site.operator.inputs[site.kernel_at] = tensor
        return WrittenKernel(codes, tensor, [*before, site.operator], site.operator, site.view)

    def check(self, blocks: TensorBlocks, tensor: Tensor, graph: Subgraph) -> str:
        """Scale of the tensor times the constant of the MUL behind its DEQUANTIZE."""
        require(tensor.scale.size == 1, tensor, f"{tensor.scale.size} scales, expected one for the whole tensor")
        dequantize = _reader(graph, blocks.tensor, "DEQUANTIZE", tensor)
        multiply = _reader(graph, dequantize.outputs[0], "MUL", tensor)
        constants = [graph.tensors[at] for at in multiply.inputs if at >= 0 and graph.tensors[at].data is not None]
        require(len(constants) == 1 and constants[0].type == "FLOAT32", tensor, "the MUL has no float32 constant")
        unpacked, factor = graph.tensors[dequantize.outputs[0]].shape, constants[0].values()
        aligned = factor.ndim <= len(unpacked) and all(
            size in (1, full) for size, full in zip(factor.shape[::-1], unpacked[::-1], strict=False)
        )
        same_size = int(np.prod(unpacked, dtype=object)) == int(np.prod(tensor.shape, dtype=object))
        require(aligned and same_size, tensor, f"scales {factor.shape} do not broadcast over {unpacked}")
        with np.errstate(all="ignore"):
            found = np.broadcast_to(factor * tensor.scale[0], unpacked).reshape(blocks.shape)
        expected = blocks.view.from_view(blocks.scales().expand(blocks.outputs, blocks.inputs))
        require(np.array_equal(found, expected), tensor, "the block scales differ from the metadata")
        return equal_to_metadata(factor.size, "block scale")


def _reader(graph: Subgraph, index: int, kind: str, tensor: Tensor) -> Operator:
    found = [operator for operator in graph.consumers.get(index, []) if operator.kind == kind]
    if len(found) != 1 or not found[0].outputs:
        raise VerificationError(f"tensor {tensor.name!r}: expected one {kind} to read it, found {len(found)}")
    return found[0]


INLINE = Inline()
