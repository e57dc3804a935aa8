"""Block scales from what the file has of them, so that the metadata need not repeat them (``docs/format.md``).

A row of blocks has one scale in the quantization parameters of its tensor; or all block scales are a constant. Where
factors are known, each base follows from one of these; where a layer has one base and shifts, the shifts do as well.
"""

from dataclasses import dataclass

import numpy as np

from tfptq.base.text import quoted
from tfptq.core.affine import LARGEST_SHIFT
from tfptq.core.blocks import WeightView
from tfptq.tflite.checks import require
from tfptq.tflite.layouts import Layout
from tfptq.tflite.model_parts import Subgraph, Tensor
from tfptq.tflite.tensor_blocks import TensorBlocks


@dataclass(frozen=True, eq=False)
class FileScales:
    """What the file has of the scales of a weight.

    Attributes:
        values: float32 ``[V, H]`` of all blocks, or ``[V, 1]`` of the rows.
        columns: number of columns of blocks, ``H``.
        in_constant: whether ``values`` are those of all blocks, from a constant.
    """

    values: np.ndarray
    columns: int
    in_constant: bool

    @classmethod
    def written(cls, blocks: TensorBlocks) -> "FileScales":
        """What a file has to have for a weight."""
        scales, constant = blocks.scales(), blocks.layout.scales_in_constant
        multiples = None if constant else scales.row_multiples()
        values = scales.values() if multiples is None else multiples[1][:, None]
        return cls(values, scales.factors.shape[1], constant)

    @classmethod
    def read(
        cls, layout: Layout, view: WeightView, block_shape: tuple[int, int], tensor: Tensor, constant: Tensor | None
    ) -> "FileScales":
        """What a file has; ``constant`` holds the block scales, None where the tensor itself has those of the rows.

        Raises:
            VerificationError: the tensors have other shapes or types than the layout says.
        """
        (outputs, inputs, _), (m, n) = view.view_shape, block_shape
        rows, columns = -(-outputs // m), -(-inputs // n)
        if constant is not None:
            return cls(layout.block_scales(tensor, constant, view, block_shape), columns, True)
        found = tensor.scale.size
        require(found in (1, outputs), tensor, f"it has {found} scales for {outputs} output channels")
        values = np.full(rows, tensor.scale[0]) if found == 1 else tensor.scale[::m]
        return cls(values.astype(np.float32)[:, None], columns, False)

    @property
    def states_blocks(self) -> bool:
        """Whether ``values`` are the scales of all blocks."""
        return self.in_constant or self.columns == 1

    def base(self, kind: str, factors: np.ndarray, shared: bool) -> np.ndarray:
        """float32 ``[V]``, or ``[1]`` where all rows share it, from the scales and the factors ``[V, H]``."""
        rows = self.values[:, 0]
        with np.errstate(all="ignore"):
            if kind == "integer":
                base = rows / factors[:, 0].astype(np.float32) if self.states_blocks else rows
            else:
                base = np.ldexp(rows, -(factors[:, 0] if self.states_blocks else factors.min(axis=1)).astype(np.int32))
        return base.astype(np.float32)[: 1 if shared else None]

    def shifts(self, largest: int) -> tuple[np.ndarray, np.ndarray] | None:
        """``(base [1], factors int8 [V, 1])`` of rows that are powers of two apart; ``largest`` is the largest factor.

        None for rows that are not, or too far.
        """
        rows = self.values[:, 0]
        with np.errstate(all="ignore"):
            base = np.ldexp(rows.max(keepdims=True), -largest).astype(np.float32)
            factors = np.clip(np.frexp(rows)[1] - np.frexp(base)[1], -LARGEST_SHIFT, LARGEST_SHIFT)
            exact = np.array_equal(np.ldexp(base, factors), rows)
        return (base, factors.astype(np.int8)[:, None]) if exact else None


def constant_of(graph: Subgraph, index: int, tensor: Tensor) -> Tensor:
    """The constant of scales that a record points to."""
    require(index < len(graph.tensors), tensor, f"the constant {index} of its scales does not exist")
    constant = graph.tensors[index]
    require(constant.data is not None, tensor, f"its scales {quoted(constant.name)} are no constant")
    return constant
