"""The records of the quantized weights in the block metadata (``docs/format.md``, "The records")."""

import zlib
from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from tfptq.base.text import quoted
from tfptq.core.affine import SCALE_KINDS
from tfptq.core.blocks import BlockScales, WeightView
from tfptq.tflite.blocks_schema import layout_number, layout_of, member_of
from tfptq.tflite.checks import VerificationError, float_bits, require, tensor_at
from tfptq.tflite.file_scales import FileScales, constant_of
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.layouts import Layout
from tfptq.tflite.model_parts import Model, Tensor
from tfptq.tflite.packing import PackedReader, PackedWriter
from tfptq.tflite.tensor_blocks import LARGEST_RANK, TensorBlocks, check_blocks

#: In place of the width of factors: they follow from the scales.
_FROM_SCALES = 255
#: All weights together may have so many scales for each byte of the file; tensors may share a buffer.
_MOST_SHARING = 4


class Flag(IntFlag):
    """What a record has beside the parts that all have."""

    SUBGRAPH = 1
    LAYER = 2
    SHAPE = 4
    AXES = 8
    INPUTS_FIRST = 16
    SCALES = 32
    SHARED_BASE = 64
    BASE = 128


def write_records(tensors: tuple[TensorBlocks, ...]) -> bytes:
    """All records, one after the other.

    Raises:
        FormatError: a weight whose scales are a constant of the file does not tell which.
    """
    out = PackedWriter()
    for blocks in tensors:
        start = len(out.data)
        _write(out, blocks)
        scales = blocks.scales().values()
        out.scalar("I", checksum(bytes(out.data[start:]), blocks.tensor_name, blocks.shape, scales))
    return bytes(out.data)


def read_records(records: bytes, model: Model) -> tuple[TensorBlocks, ...]:
    """The weights that records describe, with the scales of the file.

    Raises:
        FormatError: a record is damaged or contradicts itself.
        VerificationError: a tensor is not the one that the record was made for.
    """
    source, found, scales_left = PackedReader(records), [], _MOST_SHARING * model.size
    while not source.at_end:
        start = source.position
        record = _Record.read(source, model)
        scales_left -= record.rows * record.columns
        if scales_left < 0:
            raise FormatError(f"{record.what}: the weights have more scales than the file can hold")
        found.append(record.blocks(source, start))
    return tuple(found)


def layer_of(tensor_name: str) -> str:
    """The layer that the name of a tensor tells: ``conv2d_1`` of ``model/conv2d_1_2/convolution``."""
    parts = tensor_name.split("/")
    part = parts[-2] if len(parts) > 1 else tensor_name
    stem, _, number = part.rpartition("_")
    return stem if stem and number.isascii() and number.isdigit() else part


def checksum(record: bytes, tensor_name: str, shape: tuple[int, ...], scales: np.ndarray) -> int:
    """CRC-32 of a record, of what it takes from the file, and of what follows from both, the scales ``[V, H]``."""
    from_file = tensor_name.encode() + np.asarray(shape, "<u4").tobytes()
    return zlib.crc32(record + from_file + np.asarray(scales, "<f4").tobytes())


def _write(out: PackedWriter, blocks: TensorBlocks) -> None:
    factors = None if blocks.scale_kind == "float" else _StoredFactors.of(blocks)
    flags = _flags(blocks, factors)
    out.scalar("B", blocks.bits | SCALE_KINDS.index(blocks.scale_kind) << 4)
    out.scalar("B", layout_number(blocks.layout))
    out.scalar("B", flags)
    out.number(blocks.tensor)
    if Flag.SUBGRAPH in flags:
        out.number(blocks.subgraph)
    if Flag.LAYER in flags:
        out.text(blocks.layer)
    if Flag.SHAPE in flags:
        out.numbers(blocks.shape)
    if Flag.AXES in flags:
        out.numbers((blocks.output_axis, *blocks.input_axes))
    for size, whole in zip(blocks.block_shape, (blocks.outputs, blocks.inputs), strict=True):
        out.number(0 if size == whole else size)
    if blocks.scales_tensor is not None:
        out.number(blocks.scales_tensor)
    if factors is not None:
        factors.write(out)


def _flags(blocks: TensorBlocks, factors: "_StoredFactors | None") -> Flag:
    if blocks.layout.scales_in_constant != (blocks.scales_tensor is not None):
        raise FormatError(
            f"block metadata of layer {quoted(blocks.layer)}: the layout {blocks.layout.name} "
            + ("needs a constant of scales" if blocks.layout.scales_in_constant else "has no constant of scales")
        )
    axes, last = (blocks.output_axis, *blocks.input_axes), len(blocks.shape) - 1
    usual: dict[tuple[int, ...], Flag] = {(0, last): Flag(0), (last, 0): Flag.INPUTS_FIRST}
    present = {
        Flag.SUBGRAPH: blocks.subgraph != 0,
        Flag.LAYER: blocks.layer != layer_of(blocks.tensor_name),
        Flag.SHAPE: not blocks.layout.keeps_shape,
        Flag.SCALES: blocks.scales_tensor is not None,
        Flag.SHARED_BASE: factors is not None and blocks.base.size == 1,
        Flag.BASE: factors is not None and factors.base is not None,
    }
    flags = usual.get(axes, Flag.AXES)
    for flag, holds in present.items():
        flags |= flag if holds else Flag(0)
    return flags


@dataclass(frozen=True, eq=False)
class _StoredFactors:
    """What a record has of the factors and the base, beside what follows from the scales in the file."""

    bits: int
    offset: int
    codes: np.ndarray | None = None
    base: np.ndarray | None = None

    @classmethod
    def of(cls, blocks: TensorBlocks) -> "_StoredFactors":
        scales, factors = FileScales.written(blocks), blocks.factors.astype(np.int16)
        shared = blocks.base.size == 1
        if blocks.scale_kind == "shift" and shared and scales.columns == 1:
            found = scales.shifts(int(factors.max()))
            if found is not None and _same_bits(found[0], blocks.base) and np.array_equal(found[1], factors):
                return cls(_FROM_SCALES, int(factors.max()))
        offset = int(factors.min())
        codes = factors - offset
        follows = _same_bits(scales.base(blocks.scale_kind, factors, shared), blocks.base)
        return cls(int(codes.max()).bit_length(), offset, codes, None if follows else blocks.base)

    def write(self, out: PackedWriter) -> None:
        out.scalar("B", self.bits)
        out.scalar("b", self.offset)
        if self.base is not None:
            out.floats(self.base)
        if self.codes is not None and self.bits:
            out.bits(self.codes, self.bits)


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(float_bits(one), float_bits(other))


@dataclass(frozen=True, eq=False)
class _Record:
    """A record up to its factors: which weight, and how it is cut into blocks."""

    bits: int
    scale_kind: str
    layout: Layout
    flags: Flag
    subgraph: int
    index: int
    tensor: Tensor
    layer: str
    view: WeightView
    block_shape: tuple[int, int]
    constant: Tensor | None
    scales_tensor: int | None

    @classmethod
    def read(cls, source: PackedReader, model: Model) -> "_Record":
        head, layout, flags = source.scalar("B"), source.scalar("B"), Flag(source.scalar("B"))
        index = source.number()
        subgraph = source.number() if Flag.SUBGRAPH in flags else 0
        tensor = tensor_at(model, subgraph, index)
        layer = source.text() if Flag.LAYER in flags else layer_of(tensor.name)
        what = f"layer {quoted(layer)}, tensor {quoted(tensor.name)}"
        require(tensor.data is not None, tensor, "it is not a constant")
        view = _view(source, flags, tensor.shape, what)
        block_shape = _block_shape(source, view, what)
        scales_tensor = source.number() if Flag.SCALES in flags else None
        graph = model.subgraphs[subgraph]
        record = cls(
            bits=head & 15,
            scale_kind=member_of(SCALE_KINDS, head >> 4, "scale kind", what),
            layout=layout_of(layout, what),
            flags=flags,
            subgraph=subgraph,
            index=index,
            tensor=tensor,
            layer=layer,
            view=view,
            block_shape=block_shape,
            constant=None if scales_tensor is None else constant_of(graph, scales_tensor, tensor),
            scales_tensor=scales_tensor,
        )
        record._check_flags()
        return record

    @property
    def what(self) -> str:
        return f"block metadata of layer {quoted(self.layer)}, tensor {quoted(self.tensor.name)}"

    @property
    def rows(self) -> int:
        return -(-self.view.view_shape[0] // self.block_shape[0])

    @property
    def columns(self) -> int:
        return -(-self.view.view_shape[1] // self.block_shape[1])

    def _check_flags(self) -> None:
        if self.layout.scales_in_constant != (Flag.SCALES in self.flags):
            raise FormatError(f"{self.what}: its scales are not where the layout {self.layout.name} has them")
        if self.scale_kind == "float" and self.flags & (Flag.SHARED_BASE | Flag.BASE):
            raise FormatError(f"{self.what}: float scales have no base")

    def blocks(self, source: PackedReader, start: int) -> TensorBlocks:
        """Read the rest of the record that began at ``start``, take the scales from the file, compare the checksum."""
        if self.scale_kind == "float":
            base, factors = np.ones(1, np.float32), self._scales().values
            if factors.shape[1] != self.columns:
                raise FormatError(f"{self.what}: float blocks cannot lie in {self.layout.name}")
        else:
            base, factors = self._factors(source)
        scales = BlockScales(self.scale_kind, base, factors, self.block_shape)
        with np.errstate(all="ignore"):
            found = checksum(source.since(start), self.tensor.name, self.view.shape, scales.values())
        same = found == source.scalar("I")
        require(same, self.tensor, "the checksum differs: its name, shape, scales or metadata have been changed")
        return TensorBlocks(
            tensor=self.index,
            tensor_name=self.tensor.name,
            layer=self.layer,
            bits=self.bits,
            scale_kind=self.scale_kind,
            layout=self.layout,
            shape=self.view.shape,
            output_axis=self.view.output_axes[0],
            input_axes=self.view.input_axes,
            block_shape=self.block_shape,
            base=base,
            factors=factors,
            subgraph=self.subgraph,
            scales_tensor=self.scales_tensor,
        )

    def _scales(self) -> FileScales:
        return FileScales.read(self.layout, self.view, self.block_shape, self.tensor, self.constant)

    def _factors(self, source: PackedReader) -> tuple[np.ndarray, np.ndarray]:
        """``(base, factors)`` of the kinds ``integer`` and ``shift``."""
        width, offset, shared = source.scalar("B"), source.scalar("b"), Flag.SHARED_BASE in self.flags
        stored = source.floats(1 if shared else self.rows) if Flag.BASE in self.flags else None
        if width == _FROM_SCALES:
            if self.scale_kind != "shift" or not shared or stored is not None or self.columns > 1:
                raise FormatError(f"{self.what}: its factors do not follow from scales")
            found = self._scales().shifts(offset)
            if found is None:
                raise VerificationError(f"{self.what}: its scales are not powers of two apart, as its metadata says")
            return found
        if width > 8:
            raise FormatError(f"{self.what}: factors of {width} bits")
        count = self.rows * self.columns
        codes = source.bits(count, width) if width else np.zeros(count, np.uint8)
        factors = codes.astype(np.int16).reshape(self.rows, self.columns) + offset
        if factors.max() > 127:
            raise FormatError(f"{self.what}: {self.scale_kind} factor out of range")
        factors = factors.astype(np.int8)
        return self._scales().base(self.scale_kind, factors, shared) if stored is None else stored, factors


def _view(source: PackedReader, flags: Flag, tensor_shape: tuple[int, ...], what: str) -> WeightView:
    """The shape of the kernel and its axes."""
    shape = source.numbers(LARGEST_RANK) if Flag.SHAPE in flags else tensor_shape
    last = len(shape) - 1
    axes: tuple[int, ...] = (last, 0) if Flag.INPUTS_FIRST in flags else (0, last)
    if Flag.AXES in flags:
        axes = source.numbers(LARGEST_RANK)
    if not axes or (Flag.AXES in flags and Flag.INPUTS_FIRST in flags):
        raise FormatError(f"block metadata of {what}: no output axis, or two ways to tell it")
    check_blocks(shape, axes[0], axes[1:], (1, 1), what)
    taps = tuple(axis for axis in range(len(shape)) if axis not in axes)
    return WeightView(shape, axes[:1], axes[1:], taps)


def _block_shape(source: PackedReader, view: WeightView, what: str) -> tuple[int, int]:
    outputs, inputs, _ = view.view_shape
    block_shape = source.number() or outputs, source.number() or inputs
    check_blocks(view.shape, view.output_axes[0], view.input_axes, block_shape, what)
    return block_shape
