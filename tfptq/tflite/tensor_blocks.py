"""The description of one quantized weight tensor, and the rules that it must not break.

Kernels are seen as ``W[O, I, T]`` (``tfptq.core.blocks``); ``docs/format.md`` states how codes and scales lie in the
tensor: in the layouts ``int8`` and ``int4`` it holds ``q * r`` with a scale per output channel,

* one column of blocks: ``r = 1``, ``s[o] = S[v, 0]``;
* integer factors: ``r = factors``, ``s[o] = base[v]``;
* shifts: ``r = 2**(factors - e)``, ``s[o] = base[v] * 2**e``, ``e[v]`` the smallest factor of the row.
"""

import math
from dataclasses import dataclass

import numpy as np

from tfptq.base.text import quoted
from tfptq.core.affine import LARGEST_MULTIPLIER, LARGEST_SHIFT, SCALE_KINDS, WEIGHT_BITS
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.layouts import Layout

GRANULARITIES = ("tensor", "channel", "block")
#: Most axes that a kernel can have.
LARGEST_RANK = 8


@dataclass(frozen=True, eq=False)
class TensorBlocks:
    """How one weight tensor is quantized.

    Attributes:
        tensor: index of the tensor in its subgraph.
        tensor_name: its name.
        layer: name of the Keras layer.
        bits: width of the codes.
        scale_kind: ``"float"``, ``"integer"`` or ``"shift"``, see ``BlockScales``.
        layout: how the tensor holds the codes.
        shape: shape in which the weighted operator reads the kernel.
        output_axis: axis of the output channels.
        input_axes: axes that together number the input channels, the last fastest; none: one input channel.
        block_shape: ``(m, n)`` in channels.
        base: float32 ``[V]`` or ``[1]``.
        factors: ``[V, H]``; float32 for ``float``, int8 for the others.
        subgraph: index of the subgraph.
        scales_tensor: index of the constant of block scales, for layouts that have one (not in version 1).
    """

    tensor: int
    tensor_name: str
    layer: str
    bits: int
    scale_kind: str
    layout: Layout
    shape: tuple[int, ...]
    output_axis: int
    input_axes: tuple[int, ...]
    block_shape: tuple[int, int]
    base: np.ndarray
    factors: np.ndarray
    subgraph: int = 0
    scales_tensor: int | None = None

    def __post_init__(self):
        _check(self)

    @classmethod
    def from_quantized_weight(
        cls,
        weight: QuantizedWeight,
        *,
        view: WeightView,
        tensor: int,
        tensor_name: str,
        layer: str,
        layout: Layout,
        subgraph: int = 0,
        scales_tensor: int | None = None,
    ) -> "TensorBlocks":
        """Describe a ``QuantizedWeight`` whose kernel an operator reads in the shape of ``view``.

        Raises:
            FormatError: the description contradicts itself.
        """
        outputs, inputs, _ = weight.codes.shape
        scales, (m, n) = weight.scales, weight.scales.block_shape
        return cls(
            tensor=tensor,
            tensor_name=tensor_name,
            layer=layer,
            bits=weight.bits,
            scale_kind=scales.kind,
            layout=layout,
            shape=tuple(int(size) for size in view.shape),
            output_axis=_the_output_axis(view, layer),
            input_axes=tuple(view.input_axes),
            block_shape=(min(m, outputs), min(n, inputs)),
            base=np.asarray(scales.base, np.float32),
            factors=np.asarray(scales.factors, np.float32 if scales.kind == "float" else np.int8),
            subgraph=subgraph,
            scales_tensor=scales_tensor,
        )

    @property
    def view(self) -> WeightView:
        """The way from an array of ``shape`` to the canonical ``[O, I, T]``."""
        channels = (self.output_axis, *self.input_axes)
        taps = tuple(axis for axis in range(len(self.shape)) if axis not in channels)
        return WeightView(self.shape, (self.output_axis,), self.input_axes, taps)

    @property
    def outputs(self) -> int:
        """Number of output channels ``O``."""
        return self.shape[self.output_axis]

    @property
    def inputs(self) -> int:
        """Number of input channels ``I``."""
        return math.prod(self.shape[axis] for axis in self.input_axes)

    @property
    def is_shift_scaler(self) -> bool:
        """Whether this is WES: one base for the layer and a shift for each output channel."""
        return self.scales().is_shift_scaler

    @property
    def granularity(self) -> str:
        """One of ``GRANULARITIES``, see ``BlockScales.granularity``."""
        return self.scales().granularity

    def scales(self) -> BlockScales:
        """The scales of the blocks."""
        return BlockScales(self.scale_kind, self.base, self.factors, self.block_shape)

    def multipliers(self) -> np.ndarray:
        """Integers ``r[V, H]`` (int32) that layouts on integers multiply the codes with; ValueError without such."""
        return self._row_multiples()[0]

    def row_scales(self) -> np.ndarray:
        """Scale of each output channel (float32 ``[O]``) in layouts on integers; ValueError where there is none."""
        return np.repeat(self._row_multiples()[1], self.block_shape[0])[: self.outputs]

    def _row_multiples(self) -> tuple[np.ndarray, np.ndarray]:
        multiples = self.scales().row_multiples()
        if multiples is None:
            raise ValueError(f"{self.layer}: float scales of blocks inside a row have no scale per output channel")
        return multiples


def _the_output_axis(view: WeightView, layer: str) -> int:
    if len(view.output_axes) != 1:
        raise FormatError(f"{layer}: the kernel has the output axes {view.output_axes}; the format knows exactly one")
    return view.output_axes[0]


def check_blocks(
    shape: tuple[int, ...], output_axis: int, input_axes: tuple[int, ...], block_shape: tuple[int, int], what: str
) -> None:
    """Refuse axes that a shape does not have, and blocks that are none of its channels."""

    def require(holds: bool, problem: str) -> None:
        if not holds:
            raise FormatError(f"block metadata of {what}: {problem}")

    rank, axes = len(shape), (output_axis, *input_axes)
    require(1 <= rank <= LARGEST_RANK and all(size >= 1 for size in shape), f"impossible shape {shape}")
    require(len(set(axes)) == len(axes) and set(axes) <= set(range(rank)), f"axes {axes} in the shape {shape}")
    (m, n), outputs, inputs = block_shape, shape[output_axis], math.prod(shape[axis] for axis in input_axes)
    require(1 <= m <= outputs and 1 <= n <= inputs, f"blocks of {m} x {n} in {outputs} x {inputs} channels")


def _check(blocks: TensorBlocks) -> None:
    """Refuse a ``TensorBlocks`` that contradicts itself. Allocates no more than the arrays it is given."""
    what = f"layer {quoted(blocks.layer)}, tensor {quoted(blocks.tensor_name)}"

    def require(holds: bool, problem: str) -> None:
        if not holds:
            raise FormatError(f"block metadata of {what}: {problem}")

    require(blocks.bits in WEIGHT_BITS, f"{blocks.bits} bits; there are {WEIGHT_BITS}")
    require(blocks.scale_kind in SCALE_KINDS, f"unknown scale kind {blocks.scale_kind!r}")
    require(blocks.subgraph >= 0 and blocks.tensor >= 0, "negative index")
    check_blocks(blocks.shape, blocks.output_axis, blocks.input_axes, blocks.block_shape, what)
    (m, n), outputs, inputs = blocks.block_shape, blocks.outputs, blocks.inputs
    rows, columns = -(-outputs // m), -(-inputs // n)
    require(blocks.factors.shape == (rows, columns), f"factors {blocks.factors.shape}, expected {(rows, columns)}")
    require(blocks.base.shape in ((1,), (rows,)), f"base of shape {blocks.base.shape}, expected 1 or {rows} entries")
    _check_scales(blocks, require)
    no_multiples = blocks.scale_kind == "float" and columns > 1
    require(not no_multiples or blocks.layout.scales_in_constant, f"float blocks cannot lie in {blocks.layout.name}")


def _check_scales(blocks: TensorBlocks, require) -> None:
    lowest, highest = {
        "float": (0, np.inf),
        "integer": (1, LARGEST_MULTIPLIER),
        "shift": (-LARGEST_SHIFT, LARGEST_SHIFT),
    }[blocks.scale_kind]
    base, factors = blocks.base, blocks.factors
    # Comparisons with NaN are false, and raise the flag "invalid" for some NaNs.
    with np.errstate(all="ignore"):
        require(bool((base > 0).all() and (base < np.inf).all()), "scales must be finite and positive")
        in_range = (factors >= lowest) & (factors <= highest)
        require(bool(in_range.all()), f"{blocks.scale_kind} factor out of range")
    if blocks.scale_kind == "float":
        require(blocks.base.shape == (1,) and blocks.base[0] == 1, "float factors go with the one base 1.0")
    with np.errstate(all="ignore"):
        values = blocks.scales().values()
    require(bool((values > 0).all() and (values < np.inf).all()), "scales must be finite and positive")
