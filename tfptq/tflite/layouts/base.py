"""What a layout is, and the values that go in and out of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.core.windows import Window
from tfptq.ops.table import spec_of
from tfptq.tflite.checks import require
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_parts import Tensor

if TYPE_CHECKING:
    from tfptq.tflite.kernel_uses import KernelUse
    from tfptq.tflite.model_parts import Subgraph
    from tfptq.tflite.tensor_blocks import TensorBlocks

#: What a config can ask for in place of a layout: the fewest bytes within a budget of latency, or nothing slower than
#: INT8.
POLICIES = ("size", "speed")


_ONE_TAP = Window()


class LayoutError(ValueError):
    """A layer cannot have the layout that the config names. The message says why, and which it can have."""


class Computes(Enum):
    """What an operator with a kernel computes on."""

    INTEGER = "integer"
    #: On activations that the kernel quantizes at run time; float in the graph.
    DYNAMIC = "dynamic"
    FLOAT = "float"


@dataclass(frozen=True)
class LayoutRequest:
    """What is known of a kernel before it is fitted.

    Attributes:
        operator: kind of the operator that reads it, such as ``CONV_2D``.
        view_shape: ``(O, I, T)``.
        block_shape: ``(m, n)`` channels that share a scale.
        scale_kind: one of ``SCALE_KINDS``.
        weight_bits: width of the codes.
        activation_bits: width of the activations in the file, 8 or 16.
        is_shift_scaler: whether it has WES scales, one for the layer and a shift for each output channel.
        window: geometry of the operator.
        input_sizes: shape of the activation that the kernel meets; -1 where open.
        computes: what the config wants the operator to compute on.
    """

    operator: str
    view_shape: tuple[int, int, int]
    block_shape: tuple[int, int]
    scale_kind: str
    weight_bits: int
    activation_bits: int = 8
    is_shift_scaler: bool = False
    window: Window = _ONE_TAP
    input_sizes: tuple[int, ...] = ()
    computes: Computes = Computes.INTEGER

    @property
    def has_row_blocks(self) -> bool:
        """Whether several blocks lie side by side, so that one output channel has several scales."""
        return self.block_shape[1] < self.view_shape[1]


@dataclass(frozen=True, eq=False)
class KernelSite:
    """An operator whose float kernel is to be replaced.

    Attributes:
        model: model to edit.
        operator: the operator; its bias is in place where the layout does not compute on integers.
        kernel_at: place of the kernel among its inputs.
        name: name for the tensor of codes.
        weight: codes, and scales as ``Layout.stored_scales`` returned them.
        view: way from the kernel in the file to the canonical view.
        window: geometry of the operator.
    """

    model: TFLiteModel
    operator: Any
    kernel_at: int
    name: str
    weight: QuantizedWeight
    view: WeightView
    window: Window


@dataclass(frozen=True, eq=False)
class WrittenKernel:
    """What a layout wrote for one use of a kernel.

    Attributes:
        codes: name of the tensor of codes, unique over all subgraphs.
        tensor: index of the tensor that the operator reads as its kernel.
        operators: what stands in the place of the operator, in execution order.
        reader: the one of them that reads the kernel.
        view: way from the kernel to the canonical view; its shape may differ from that of the tensor that the reader
            reads where the layout does not keep it.
        scales: float32 ``[O]``: weight scale of each output channel, which the bias shares; None where the layout does
            not compute on integers.
        block_scales: name of the constant of block scales, for layouts that have one.
        moved: new activation between the operators -> the one before them, whose values and grid it has.
    """

    codes: str
    tensor: int
    operators: list
    reader: Any
    view: WeightView
    scales: np.ndarray | None = None
    block_scales: str | None = None
    moved: Mapping[int, int] = field(default_factory=dict)


class Layout(ABC):
    """One way to store a kernel.

    Attributes:
        name: as it stands in configs and reports.
        serves: what operators that read the kernel can compute on, the usual first.
        format_name: member of the enumeration ``Layout`` in ``blocks.fbs``.
        tensor_types: types that the tensor of codes may have.
        keeps_shape: whether the tensor of codes has the shape of the kernel, or only as many elements.
        scales_in_constant: whether block scales are a constant of their own, in place of those of the rows in the
            quantization parameters.
        exact_scales: whether the file holds every float32 scale as it is; else ``stored_scales`` are final.
        cost: what the report says about the kernels that have the layout, after their number; None for nothing.
    """

    name: str
    serves: tuple[Computes, ...]
    format_name: str
    tensor_types: tuple[str, ...]
    keeps_shape: bool = True
    scales_in_constant: bool = False
    exact_scales: bool = True
    cost: str | None = None

    def __str__(self) -> str:
        return self.name

    # Choice.

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Why a kernel cannot have the layout, as far as it is known before fitting."""
        return None

    def depends_on_codes(self, request: LayoutRequest) -> bool:
        """Whether ``obstacle_of`` may still refuse a kernel that ``obstacle`` lets pass."""
        return False

    def obstacle_of(self, weight: QuantizedWeight) -> str | None:
        """Why a fitted weight cannot have the layout."""
        return None

    def stored_scales(self, scales: BlockScales) -> BlockScales:
        """Scales as the file holds them; raises ValueError for such that it cannot hold."""
        return scales

    def symmetric(self, weight_bits: int, computes: Computes) -> bool:
        """Whether operators misread the least code of a width, which has no mirror image."""
        return False

    # Size.

    @abstractmethod
    def code_bits(self, weight_bits: int) -> int:
        """Bits of one code in the file."""

    def operators_in_front(self, request: LayoutRequest) -> int:
        """How many operators it puts in front of the one with the kernel."""
        return 0

    def code_bytes(self, weight: QuantizedWeight) -> int:
        """Bytes of the codes in the file, without scales."""
        return -(-weight.codes.size * self.code_bits(weight.bits) // 8)

    @abstractmethod
    def stored_bytes(self, weight: QuantizedWeight, view: WeightView) -> int:
        """Bytes of the codes and scales in the file."""

    # Files.

    @abstractmethod
    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """Write a kernel and let its operator, or what takes the operator's place, read it.

        Kernels of operators on integers are written into the float graph, which is lowered to integers afterwards; the
        others into the lowered graph. ``earlier`` is what was written for another operator that reads the same kernel,
        whose constants may be shared.
        """

    def read_codes(self, blocks: TensorBlocks, tensor: Tensor) -> np.ndarray:
        """int8 codes in ``blocks.shape``, without multipliers; raises FormatError where they are not exact."""
        return tensor.values().reshape(blocks.shape)

    def block_scales(
        self, tensor: Tensor, constant: Tensor, view: WeightView, block_shape: tuple[int, int]
    ) -> np.ndarray:
        """float32 ``[V, H]`` from the constant of block scales; ``VerificationError`` where it is another one."""
        raise NotImplementedError(f"the layout {self.name} has no constant of block scales")

    def fits_shape(self, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether a tensor of codes of one shape can hold a kernel of another."""
        return stored == shape

    def operator_obstacle(self, operator: str, view: WeightView) -> str | None:
        """Why an operator of a kind does not read a kernel in this layout by such a view."""
        axes = spec_of(operator).kernel
        if axes is None:
            return f"{operator} has no kernel"
        inputs = {axes.inputs, ()} if operator == "DEPTHWISE_CONV_2D" else {axes.inputs}
        same_axes = view.output_axes == axes.outputs and view.input_axes in inputs
        rank = sum(map(len, axes))
        whole = operator != "DEPTHWISE_CONV_2D" or view.shape[0] == 1
        if same_axes and len(view.shape) == rank and whole:
            return None
        return (
            f"{operator} does not read a kernel of shape {view.shape} with the output axis {view.output_axes[0]} and "
            f"the input axes {view.input_axes}"
        )

    def codes_of(self, graph: Subgraph, kernel: int) -> int | None:
        """The tensor of codes of a kernel that an operator reads; layouts that unpack codes go back to them."""
        return kernel

    def check_way(self, use: KernelUse) -> None:
        """Check that the operator reads the codes themselves; layouts that unpack them check how.

        Raises:
            VerificationError: it reads another kernel.
        """
        require(use.kernel == use.blocks.tensor, use.codes, f"the {use.operator.kind} does not read it itself")

    @abstractmethod
    def check(self, use: KernelUse) -> str:
        """Compare the scales in the file with the metadata: ``VerificationError``, or what holds."""
