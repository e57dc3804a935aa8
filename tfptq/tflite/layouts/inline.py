"""``inline``: constant -> DEQUANTIZE -> MUL(block scales) -> RESHAPE -> the operator, in float."""

from __future__ import annotations

import dataclasses
import math
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
    policies: tuple[str, ...] = ("size", "speed")
    keeps_shape = False
    scales_in_constant = True
    cost = "have the layout inline: their operators compute in float, on kernels that are unpacked at run time"

    def code_bits(self, weight_bits: int) -> int:
        """Four where the codes fit."""
        return 4 if weight_bits <= 4 else 8

    def stored_bytes(self, weight: QuantizedWeight, view: WeightView) -> int:
        """Codes and float32 factors."""
        return self.code_bytes(weight) + 4 * unpacking(weight, view).factors.size

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """The first use unpacks the kernel for all."""
        if earlier is not None:
            site.operator.inputs[site.kernel_at] = earlier.tensor
            return dataclasses.replace(earlier, operators=[site.operator], reader=site.operator, view=site.view)
        parts = unpacking(site.weight, site.view)
        before, tensor = add_unpacking(site.model, site.name, parts, self.code_bits(site.weight.bits))
        codes, scales = site.model.name(before[0].inputs[0]), site.model.name(before[1].inputs[1])
        site.operator.inputs[site.kernel_at] = tensor
        operators = [*before, site.operator]
        return WrittenKernel(codes, tensor, operators, site.operator, site.view, block_scales=scales)

    def block_scales(
        self, tensor: Tensor, constant: Tensor, view: WeightView, block_shape: tuple[int, int]
    ) -> np.ndarray:
        """What falls on the first weight of each block; the constant broadcasts over the codes."""
        in_float = constant.type == "FLOAT32" and tensor.scale.size == 1
        require(in_float, tensor, f"its block scales {constant.name!r} are no float32 factors")
        same_size = tensor.data is not None and math.prod(tensor.shape) == math.prod(view.shape)
        aligned = tensor.shape != () and _broadcasts(constant.shape, tensor.shape)
        require(same_size and aligned, tensor, f"scales {constant.shape} do not broadcast over the kernel")
        weights = _first_weights(view, block_shape)
        place = np.unravel_index(weights, tensor.shape)
        kept = place[len(place) - len(constant.shape) :]
        at = tuple(where * (size > 1) for where, size in zip(kept, constant.shape, strict=True))
        with np.errstate(all="ignore"):
            values = np.asarray(constant.values()[at] * tensor.scale[0], np.float32)
        return np.broadcast_to(values, weights.shape)

    def check(self, blocks: TensorBlocks, tensor: Tensor, graph: Subgraph) -> str:
        """Scale of the tensor times the constant of the MUL behind its DEQUANTIZE."""
        require(tensor.scale.size == 1, tensor, f"{tensor.scale.size} scales, expected one for the whole tensor")
        dequantize = _reader(graph, blocks.tensor, "DEQUANTIZE", tensor)
        multiply = _reader(graph, dequantize.outputs[0], "MUL", tensor)
        constants = [graph.tensors[at] for at in multiply.inputs if at >= 0 and graph.tensors[at].data is not None]
        require(len(constants) == 1 and constants[0].type == "FLOAT32", tensor, "the MUL has no float32 constant")
        unpacked, factor = graph.tensors[dequantize.outputs[0]].shape, constants[0].values()
        aligned = _broadcasts(factor.shape, unpacked)
        same_size = int(np.prod(unpacked, dtype=object)) == int(np.prod(tensor.shape, dtype=object))
        require(aligned and same_size, tensor, f"scales {factor.shape} do not broadcast over {unpacked}")
        with np.errstate(all="ignore"):
            found = np.broadcast_to(factor * tensor.scale[0], unpacked).reshape(blocks.shape)
        expected = blocks.view.from_view(blocks.scales().expand(blocks.outputs, blocks.inputs))
        require(np.array_equal(found, expected), tensor, "the block scales differ from the metadata")
        return equal_to_metadata(factor.size, "block scale")


def _broadcasts(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    """Whether an array of a shape broadcasts over another one without making it larger."""
    return len(shape) <= len(over) and all(
        size in (1, full) for size, full in zip(shape[::-1], over[::-1], strict=False)
    )


def _first_weights(view: WeightView, block_shape: tuple[int, int]) -> np.ndarray:
    """Place ``[V, H]`` of the first weight of each block among the weights of a kernel, in row-major order."""
    (outputs, inputs, _), (m, n) = view.view_shape, block_shape
    steps = np.cumprod([1, *view.shape[:0:-1]])[::-1]  # from one index of an axis to the next
    sizes = [view.shape[axis] for axis in view.input_axes]
    channels = np.unravel_index(np.arange(0, inputs, n), sizes) if sizes else ()
    columns = sum(channel * steps[axis] for channel, axis in zip(channels, view.input_axes, strict=True))
    return np.arange(0, outputs, m)[:, None] * steps[view.output_axes[0]] + columns * np.ones(-(-inputs // n), int)


def _reader(graph: Subgraph, index: int, kind: str, tensor: Tensor) -> Operator:
    found = [operator for operator in graph.consumers.get(index, []) if operator.kind == kind]
    if len(found) != 1 or not found[0].outputs:
        raise VerificationError(f"tensor {tensor.name!r}: expected one {kind} to read it, found {len(found)}")
    return found[0]


INLINE = Inline()
