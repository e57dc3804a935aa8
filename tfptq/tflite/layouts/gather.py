"""Operators that bring together what each output position of a convolution reads, for a FULLY_CONNECTED behind them.

They only move values. All of them are of forms that XNNPACK takes (LiteRT 2.3), so that they do not cut a graph in
pieces: STRIDED_SLICE without strides, RESHAPE instead of strides, at most five inputs of a CONCATENATION. SLICE is not
among them: its sizes are fixed, and a batch may be open.

With a stride ``s``, ``s`` neighbours are seen as one position of ``s`` times the channels; a tap then is a slice.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.windows import Window
from tfptq.tflite.model import TFLiteModel

#: XNNPACK concatenates no more tensors at once.
_MOST_JOINED = 5


class Moves(ABC):
    """The verbs that bring values together; a subclass says what becomes of the operators.

    Attributes:
        source: the activation that all values come from.
    """

    source: int

    @abstractmethod
    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of an activation."""

    def pad(self, tensor: int, pads: Sequence[tuple[int, int]]) -> int:
        """Zeros in front of and behind each axis."""
        if not any(map(any, pads)):
            return tensor
        shape = [size + sum(pad) for size, pad in zip(self.shape(tensor), pads, strict=True)]
        return self._add("PAD", [tensor, self._constant(pads)], shape, schema.PadOptionsT())

    def reshape(self, tensor: int, shape: Sequence[int]) -> int:
        """Another shape; the first axis is what is left over."""
        if self.shape(tensor) == tuple(shape):
            return tensor
        options = schema.ReshapeOptionsT(newShape=[-1, *shape[1:]])  # without a constant: they add up
        return self._add("RESHAPE", [tensor], shape, options)

    def cut(self, tensor: int, ranges: Mapping[int, tuple[int, int]]) -> int:
        """Parts of axes other than the first: axis -> (begin, end)."""
        shape = self.shape(tensor)
        begin, end = [0] * len(shape), list(shape)
        for axis, (first, behind) in ranges.items():
            begin[axis], end[axis] = first, behind
        if not any(begin) and end == list(shape):
            return tensor
        inputs = [tensor, *map(self._constant, (begin, end, [1] * len(shape)))]
        options = schema.StridedSliceOptionsT(beginMask=1, endMask=1)
        return self._add("STRIDED_SLICE", inputs, np.subtract(end, begin).tolist(), options)

    def join(self, tensors: Sequence[int], axis: int) -> int:
        """One behind the other along an axis."""
        while len(tensors) > 1:
            groups = [tensors[at : at + _MOST_JOINED] for at in range(0, len(tensors), _MOST_JOINED)]
            tensors = [self._join(group, axis) for group in groups]
        return tensors[0]

    def _join(self, tensors: Sequence[int], axis: int) -> int:
        if len(tensors) == 1:
            return tensors[0]
        shape = list(self.shape(tensors[0]))
        shape[axis] = sum(self.shape(tensor)[axis] for tensor in tensors)
        return self._add("CONCATENATION", tensors, shape, schema.ConcatenationOptionsT(axis=axis))

    @abstractmethod
    def _add(self, kind: str, inputs: Sequence[int], shape: Sequence[int], options) -> int:
        """Append an operator; returns its result."""

    @abstractmethod
    def _constant(self, values) -> int:
        """A constant of integers."""


class Mover(Moves):
    """Appends operators to a model that move the values of one activation.

    Attributes:
        operators: what was appended, in execution order.
        moved: new activation -> the one that all values come from.
    """

    def __init__(self, model: TFLiteModel, source: int):
        self.model, self.source = model, source
        self.operators: list = []
        self.moved: dict[int, int] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of an activation in the model."""
        return self.model.shape(tensor)

    def _add(self, kind: str, inputs: Sequence[int], shape: Sequence[int], options) -> int:
        result = self.model.add_activation_like(inputs[0], f"gather/{kind.lower()}", schema.TensorType.FLOAT32)
        tensor = self.model.tensors[result]
        tensor.shape = np.asarray(shape, np.int32)
        if tensor.shapeSignature is not None:
            tensor.shapeSignature = np.asarray([tensor.shapeSignature[0], *shape[1:]], np.int32)
        self.operators.append(self.model.new_operator(kind, inputs, [result], options=options))
        self.moved[result] = self.source
        return result

    def _constant(self, values) -> int:
        return self.model.shared_constant("gather/constant", np.asarray(values, np.int32))


class _Count(Moves):
    """Counts operators without writing them; tensors are positions in ``_shapes``."""

    def __init__(self, shape: Sequence[int]):
        self.source, self._shapes = 0, [tuple(shape)]

    @property
    def operators(self) -> int:
        return len(self._shapes) - 1

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self._shapes[tensor]

    def _add(self, kind: str, inputs: Sequence[int], shape: Sequence[int], options) -> int:
        self._shapes.append(tuple(map(int, shape)))
        return self.operators

    def _constant(self, values) -> int:
        return -1


def operators_to_gather(shape: Sequence[int], window: Window) -> int:
    """How many operators ``gather`` appends for an input ``[N, H, W, C]``."""
    count = _Count(shape)
    gather(count, window)
    return count.operators


@dataclass(frozen=True)
class _Axis:
    """Where the taps of a window lie along one spatial axis.

    Attributes:
        taps: position of each tap, from the start of the padded input, at the first output.
        stride: distance of two outputs.
        outputs: their number.
        pads: zeros before and behind, so that strides divide the whole.
    """

    taps: tuple[int, ...]
    stride: int
    outputs: int
    pads: tuple[int, int]

    @classmethod
    def of(cls, window: Window, axis: int, size: int) -> "_Axis":
        stride, outputs = window.strides[axis], window.output_size(size, axis)
        covered = (outputs - 1) * stride + window.extent(axis)
        before = max(covered - size, 0) // 2
        padded = -(-max(size + before, covered) // stride) * stride
        taps = tuple(range(0, window.extent(axis), window.dilations[axis]))
        return cls(taps, stride, outputs, (before, padded - size - before))

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Neighbouring taps of one position of ``stride`` times the channels: (position, first place, places)."""
        places = [divmod(tap, self.stride) for tap in self.taps]
        start = 0
        for at in range(1, len(places) + 1):
            position, place = places[start]
            if at == len(places) or places[at] != (position, place + at - start):
                yield position, place, at - start
                start = at


def gather(mover: Moves, window: Window) -> int:
    """``[N, H, W, C]`` -> ``[N, Ho, Wo, taps * C]``: what each output reads, in the order of the kernel's axes."""
    _, height, width, _ = mover.shape(mover.source)
    rows, columns = _Axis.of(window, 0, height), _Axis.of(window, 1, width)
    padded = mover.pad(mover.source, [(0, 0), rows.pads, columns.pads, (0, 0)])
    if window.taps == 1:
        return _pick(mover, padded, rows, columns)
    return _gather_rows(mover, _gather_columns(mover, padded, columns), rows)


def _pick(mover: Moves, tensor: int, rows: _Axis, columns: _Axis) -> int:
    """Every so many rows and columns."""
    batch, height, width, channels = mover.shape(tensor)
    step, places = columns.stride, [batch * height // rows.stride, rows.stride]
    seen = mover.reshape(tensor, [*places, width // step, step * channels])
    return mover.reshape(
        mover.cut(seen, {1: (0, 1), 3: (0, channels)}), [batch, rows.outputs, columns.outputs, channels]
    )


def _gather_columns(mover: Moves, tensor: int, axis: _Axis) -> int:
    """``[N, H, W, C]`` -> ``[N, H, Wo, kw * C]``."""
    batch, height, width, channels = mover.shape(tensor)
    seen = mover.reshape(tensor, [batch, height, width // axis.stride, axis.stride * channels])
    parts = [
        mover.cut(seen, {2: (position, position + axis.outputs), 3: (place * channels, (place + places) * channels)})
        for position, place, places in axis.runs()
    ]
    return mover.join(parts, 3)


def _gather_rows(mover: Moves, tensor: int, axis: _Axis) -> int:
    """``[N, H, W, C]`` -> ``[N, Ho, W, kh * C]``."""
    batch, height, width, channels = mover.shape(tensor)
    if axis.stride == 1:
        return mover.join([mover.cut(tensor, {1: (tap, tap + axis.outputs)}) for tap in axis.taps], 3)
    seen = mover.reshape(tensor, [batch, height // axis.stride, axis.stride, width, channels])
    places = [divmod(tap, axis.stride) for tap in axis.taps]
    parts = [mover.cut(seen, {1: (row, row + axis.outputs), 2: (place, place + 1)}) for row, place in places]
    return mover.reshape(mover.join(parts, 4), [batch, axis.outputs, width, len(parts) * channels])
