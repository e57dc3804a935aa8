"""Two-dimensional blocks of a weight, and quantized weights.

Every kernel, whatever its layout, has one canonical view ``W[O, I, T]``: output channels, input channels, taps
(spatial positions). A depthwise kernel has ``O`` = channels and ``I`` = 1; a dense one has ``T`` = 1; a grouped
convolution has ``I`` = input channels of one group.

A *block* is ``m`` output channels times ``n`` input channels with all their taps. Rows of blocks are numbered
``v`` in ``0..V-1`` with ``V = ceil(O/m)``, columns ``h`` in ``0..H-1`` with ``H = ceil(I/n)``; the last ones
may be ragged. Each block has one scale ``S[v, h]``: one block is layer-wise, ``m = 1, n = I`` channel-wise.

Source of the blocks: PTQ-SL, arXiv 2110.07809.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from tfptq.base.arguments import one_of
from tfptq.core.affine import SCALE_KINDS, nearest_codes


@dataclass(frozen=True)
class WeightView:
    """The way from a kernel in its own layout to the canonical view ``[O, I, T]`` and back.

    Each axis of the kernel is an output, an input or a tap axis; the order within each group is that of the
    canonical view (so a ``Conv2D`` kernel ``[kh, kw, I, O]`` has ``WeightView(shape, (3,), (2,), (0, 1))``).
    """

    shape: tuple[int, ...]  # of the kernel
    output_axes: tuple[int, ...]  # together they number the output channels
    input_axes: tuple[int, ...]  # the input channels; none in a depthwise kernel
    tap_axes: tuple[int, ...] = ()  # the others

    def __post_init__(self):
        if sorted(self._order) != list(range(len(self.shape))):
            raise ValueError(f"axes {self._order} do not cover a kernel of shape {self.shape} once each")

    @property
    def _order(self) -> tuple[int, ...]:
        return self.output_axes + self.input_axes + self.tap_axes

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """``(O, I, T)``."""
        outputs, inputs, taps = (
            math.prod(self.shape[axis] for axis in axes) for axes in (self.output_axes, self.input_axes, self.tap_axes)
        )
        return outputs, inputs, taps

    def to_view(self, kernel: np.ndarray) -> np.ndarray:
        """Kernel in its own layout -> contiguous ``[O, I, T]``."""
        kernel = np.broadcast_to(np.asarray(kernel), self.shape)
        return np.ascontiguousarray(kernel.transpose(self._order)).reshape(self.view_shape)

    def from_view(self, view: np.ndarray) -> np.ndarray:
        """``[O, I, T]`` -> contiguous kernel in its own layout."""
        split = np.broadcast_to(view, self.view_shape).reshape([self.shape[axis] for axis in self._order])
        return np.ascontiguousarray(split.transpose(np.argsort(self._order)))


@dataclass(frozen=True, eq=False)
class BlockScales:
    """The scales ``S[V, H]`` of the blocks of a weight.

    Three kinds, told apart by what a device multiplies with:

    * ``float``: ``S[v, h] = factors[v, h]``, any positive float32; ``base`` is all ones.
    * ``integer``: ``S[v, h] = base[v] * factors[v, h]`` with integers ``1..16``.
    * ``shift``: ``S[v, h] = base[v] * 2**factors[v, h]`` with integers ``-15..15``. WES is this kind with one
      base for the whole layer (``base`` has one entry), ``m = 1``, ``n = I`` and factors ``-k[c]``.
    """

    kind: str
    base: np.ndarray  # float32 [V], or [1] where all rows share it
    factors: np.ndarray  # [V, H]; float32 for ``float``, int8 for the others
    block_shape: tuple[int, int]  # (m, n) in channels

    def __post_init__(self):
        one_of("kind of block scales", self.kind, SCALE_KINDS)
        if self.factors.ndim != 2 or self.base.shape not in ((1,), (self.factors.shape[0],)):
            raise ValueError(f"base {self.base.shape} does not fit factors {self.factors.shape}")

    def values(self) -> np.ndarray:
        """float32 ``S[V, H]``."""
        base = self.base.astype(np.float32)[:, None]
        if self.kind == "shift":
            return np.ldexp(base, self.factors.astype(np.int32)).astype(np.float32)
        return (base * self.factors.astype(np.float32)).astype(np.float32)

    def expand(self, outputs: int, inputs: int, values: np.ndarray | None = None) -> np.ndarray:
        """One scale, or other value ``[V, H]``, per (output, input) channel pair, ``[O, I, 1]``."""
        values = self.values() if values is None else values
        m, n = self.block_shape
        return np.repeat(np.repeat(values, m, axis=0)[:outputs], n, axis=1)[:, :inputs, None]

    @property
    def free_rows(self) -> int:
        """How many numbers of ``scaled`` there are: one for each row of blocks, or one where all rows share a base."""
        return len(self.factors if self.kind == "float" else self.base)

    def scaled(self, gains: np.ndarray) -> "BlockScales":
        """Scales of the same kind, times ``gains``, positive numbers ``[free_rows]``."""
        gains = np.asarray(gains, np.float32)
        if self.kind == "float":
            return dataclasses.replace(self, factors=self.factors * gains[:, None])
        return dataclasses.replace(self, base=self.base * gains)

    @property
    def is_shift_scaler(self) -> bool:
        """Whether this is WES: one base for the layer and a shift for each output channel."""
        rows_only = self.factors.shape[1] == 1 and self.block_shape[0] == 1
        return self.kind == "shift" and self.base.size == 1 and rows_only

    @property
    def granularity(self) -> str:
        """``"tensor"`` (also for WES), ``"channel"`` for one scale for each output channel, or ``"block"``."""
        if self.count == 1 or self.is_shift_scaler:
            return "tensor"
        return "channel" if self.block_shape[0] == 1 and self.factors.shape[1] == 1 else "block"

    def row_multiples(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The scales as multiples of one for each row: ``(multipliers int32 [V, H], scale of a row float32 [V])``.

        None for float scales of several blocks in a row.
        """
        if self.factors.shape[1] == 1:
            return np.ones(self.factors.shape, np.int32), self.values()[:, 0]
        if self.kind == "float":
            return None
        factors = self.factors.astype(np.int32)
        if self.kind == "integer":
            return factors, np.broadcast_to(self.base, factors.shape[:1]).astype(np.float32)
        lowest = factors.min(axis=1)
        return 1 << (factors - lowest[:, None]), np.ldexp(self.base, lowest).astype(np.float32)

    @property
    def count(self) -> int:
        """Number of block scales."""
        return int(self.factors.size)


def float_scales(values: np.ndarray, block_shape: tuple[int, int]) -> BlockScales:
    """``BlockScales`` of the kind ``float`` from an array ``[V, H]``."""
    values = np.asarray(values, np.float32)
    return BlockScales("float", np.ones(1, np.float32), values, block_shape)


def block_maxima(view: np.ndarray, block_shape: tuple[int, int]) -> np.ndarray:
    """Largest magnitude in each block, ``[V, H]``, of a view ``[O, I, T]``."""
    m, n = block_shape
    maxima = np.abs(view).max(axis=2) if view.size else np.zeros(view.shape[:2], view.dtype)
    return run_maxima(run_maxima(maxima, m, axis=0), n, axis=1)


def run_maxima(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Largest of each run of ``size`` neighbours along an axis of any array; the last run may be shorter."""
    return np.maximum.reduceat(values, np.arange(0, values.shape[axis], size), axis=axis)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight as integer codes and block scales, in the canonical view."""

    codes: np.ndarray  # int8 [O, I, T]
    scales: BlockScales
    bits: int

    @property
    def scale_per_weight(self) -> np.ndarray:
        """float32 ``[O, I, 1]``."""
        return self.scales.expand(*self.codes.shape[:2])

    def dequantize(self) -> np.ndarray:
        """float32 ``[O, I, T]`` real weights."""
        return (self.codes * self.scale_per_weight).astype(np.float32)

    def times_rows(self, row_factors: np.ndarray) -> "QuantizedWeight":
        """The weight times a number that is not 0 for each output channel; a negative one flips signs of codes."""
        outputs, m = len(self.codes), self.scales.block_shape[0]
        row_of_block = np.repeat(np.arange(len(self.scales.factors)), m)[:outputs]
        base = np.broadcast_to(self.scales.base, len(self.scales.factors))[row_of_block]
        factors, magnitudes = self.scales.factors[row_of_block], np.abs(row_factors).astype(np.float32)
        if self.scales.kind == "float":
            base, factors = np.ones(1, np.float32), factors * (base * magnitudes)[:, None]
        else:
            base = base * magnitudes
        scales = BlockScales(self.scales.kind, base, factors, (1, self.scales.block_shape[1]))
        codes = self.codes * np.sign(row_factors).astype(np.int8)[:, None, None]
        return QuantizedWeight(codes, scales, self.bits)

    def int8_form(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The same weights as a per-channel int8 layer, ``(codes int8 [O, I, T], scale float32 [O])``.

        None when scales differ inside a row by something else than integers, or a code leaves int8.
        """
        multiples = self.scales.row_multiples()
        if multiples is None:
            return None
        multipliers, rows = multiples
        outputs, inputs, _ = self.codes.shape
        scale = np.repeat(rows, self.scales.block_shape[0])[:outputs]
        if multipliers.shape[1] == 1:
            return self.codes, scale  # -128 among them, perhaps
        codes = self.codes * self.scales.expand(outputs, inputs, multipliers)
        return None if np.abs(codes).max(initial=0) > 127 else (codes.astype(np.int8), scale)


def quantize_nearest(view: np.ndarray, scales: BlockScales, bits: int) -> QuantizedWeight:
    """Round every weight of a view ``[O, I, T]`` to the nearest code of its block."""
    codes = nearest_codes(view, scales.expand(*view.shape[:2]), bits)
    return QuantizedWeight(codes, scales, bits)
