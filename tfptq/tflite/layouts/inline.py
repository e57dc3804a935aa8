"""``inline``: constant -> DEQUANTIZE -> MUL(block scales) -> RESHAPE -> the operator, in float."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from tfptq.base.text import quoted
from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.tflite.checks import VerificationError, equal_to_metadata, require
from tfptq.tflite.layouts.base import Computes, KernelSite, Layout, WrittenKernel
from tfptq.tflite.layouts.unpacked import UnpackingChain, check_unpacking, find_unpacking
from tfptq.tflite.layouts.unpacking import add_unpacking, unpacking
from tfptq.tflite.model_parts import Tensor

if TYPE_CHECKING:
    from tfptq.tflite.kernel_uses import KernelUse
    from tfptq.tflite.model_parts import Subgraph


class Inline(Layout):
    """Codes that operators of the file itself turn into float weights."""

    name = "inline"
    serves = (Computes.FLOAT,)
    format_name = "Inline"
    tensor_types = ("INT4", "INT8")
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
        require(in_float, tensor, f"its block scales {quoted(constant.name)} are no float32 factors")
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

    def fits_shape(self, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Only the elements and their order count; RESHAPE does the rest."""
        return stored != () and math.prod(stored) == math.prod(shape)

    def codes_of(self, graph: Subgraph, kernel: int) -> int | None:
        """What the DEQUANTIZE reads."""
        chain = find_unpacking(graph, kernel)
        return None if chain is None else chain.codes

    def check_way(self, use: KernelUse) -> None:
        """DEQUANTIZE, MUL and RESHAPE, and nothing else."""
        check_unpacking(use.graph, _chain(use), use.blocks.shape, use.position)

    def check(self, use: KernelUse) -> str:
        """Scale of the tensor times the constant of the MUL behind its DEQUANTIZE."""
        blocks, tensor, graph = use.blocks, use.codes, use.graph
        require(tensor.scale.size == 1, tensor, f"{tensor.scale.size} scales, expected one for the whole tensor")
        constant = graph.tensors[_chain(use).factors]
        fixed = constant.type == "FLOAT32" and graph.is_fixed(_chain(use).factors)
        require(fixed, tensor, f"the MUL behind it multiplies with {quoted(constant.name)}, no float32 constant")
        aligned = _broadcasts(constant.shape, tensor.shape)
        require(aligned, tensor, f"scales {constant.shape} do not broadcast over {tensor.shape}")
        with np.errstate(all="ignore"):
            found = np.broadcast_to(constant.values() * tensor.scale[0], tensor.shape).reshape(blocks.shape)
        expected = blocks.view.from_view(blocks.scales().expand(blocks.outputs, blocks.inputs))
        require(np.array_equal(found, expected), tensor, "the block scales differ from the metadata")
        return equal_to_metadata(math.prod(constant.shape), "block scale")


def _chain(use: KernelUse) -> UnpackingChain:
    chain = find_unpacking(use.graph, use.kernel)
    if chain is None or chain.factors < 0:
        raise VerificationError(f"tensor {quoted(use.codes.name)}: DEQUANTIZE, MUL and RESHAPE do not lead from it")
    return chain


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


INLINE = Inline()
