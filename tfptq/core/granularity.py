"""Granularities: which weights of a kernel share a scale.

A new one is a class here with ``@granularity``: configs, their JSON, fitting and the simulation then know it.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from tfptq.base.arguments import between, check_types
from tfptq.core.affine import SCALE_KINDS


class Granularity(ABC):
    """Base of the granularities: frozen dataclasses, so that configs can be compared and stored.

    Attributes:
        scale_kinds: those of ``SCALE_KINDS`` that its scales may be of.
        has_blocks: whether a row of the kernel has several scales, so that the order of its inputs counts.
    """

    scale_kinds: ClassVar[tuple[str, ...]] = ("float",)
    has_blocks: ClassVar[bool] = False

    @property
    @abstractmethod
    def label(self) -> str:
        """Short name for tables."""

    @abstractmethod
    def block_shape(self, outputs: int, inputs: int) -> tuple[int, int]:
        """``(m, n)`` in channels, within those of the kernel."""


#: Name of a granularity, as in JSON -> its class.
GRANULARITIES: dict[str, type[Granularity]] = {}

_Class = TypeVar("_Class", bound=type[Granularity])


def granularity(cls: _Class) -> _Class:
    """Register a granularity: a frozen dataclass with another name than those there are."""
    frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if not (frozen and issubclass(cls, Granularity)) or missing:
        wanted = f"define {', '.join(missing)}" if missing else "make it a frozen dataclass, a subclass of Granularity"
        raise TypeError(f"{cls.__name__} is no granularity; {wanted}")
    if not cls.scale_kinds or not set(cls.scale_kinds) <= set(SCALE_KINDS):
        raise TypeError(f"{cls.__name__}.scale_kinds is {cls.scale_kinds}; give some of {', '.join(SCALE_KINDS)}")
    if cls.__name__ in GRANULARITIES:
        raise ValueError(f"there is a granularity {cls.__name__} already; give this one another name")
    GRANULARITIES[cls.__name__] = cls
    return cls


@granularity
@dataclass(frozen=True)
class PerTensor(Granularity):
    """One scale for a whole layer; with shifts, one for all its output channels (WES)."""

    scale_kinds: ClassVar[tuple[str, ...]] = ("float", "shift")

    @property
    def label(self) -> str:
        """``tensor``."""
        return "tensor"

    def block_shape(self, outputs: int, inputs: int) -> tuple[int, int]:
        """The whole kernel."""
        return outputs, inputs


@granularity
@dataclass(frozen=True)
class PerChannel(Granularity):
    """One scale for each output channel."""

    @property
    def label(self) -> str:
        """``channel``."""
        return "channel"

    def block_shape(self, outputs: int, inputs: int) -> tuple[int, int]:
        """A row."""
        return 1, inputs


@granularity
@dataclass(frozen=True)
class PerBlock(Granularity):
    """One scale for each block of output x input channels (PTQ-SL).

    Give the two sides of a block, or ``input_blocks`` alone. With ``input_blocks=H`` each layer's input channels are
    cut into ``H`` blocks, and as many output channels share a block as keep the number of scales at that of
    ``PerChannel`` or below: the same rule for narrow, wide and depthwise layers.

    Attributes:
        output_channels: height ``m`` of a block; the last block of a layer may be smaller.
        input_channels: width ``n`` of a block. Depthwise layers have one input channel.
        input_blocks: number ``H`` of blocks side by side, in place of ``m`` and ``n``; layers with fewer channels have
            fewer.
    """

    scale_kinds: ClassVar[tuple[str, ...]] = SCALE_KINDS
    has_blocks: ClassVar[bool] = True

    output_channels: int | None = None
    input_channels: int | None = None
    input_blocks: int | None = None

    def __post_init__(self):
        check_types(self)
        sides = (self.output_channels, self.input_channels)
        if (None in sides) if self.input_blocks is None else sides != (None, None):
            raise ValueError(
                f"{self} must have either output_channels and input_channels, or input_blocks alone: PerBlock(4, 8)"
            )
        for name, value in dataclasses.asdict(self).items():
            if value is not None:
                between(f"PerBlock.{name}", value, 1, 2**20)

    @property
    def label(self) -> str:
        """``8x16``, or ``4 input blocks``."""
        if self.input_blocks is not None:
            return f"{self.input_blocks} input blocks"
        return f"{self.output_channels}x{self.input_channels}"

    def block_shape(self, outputs: int, inputs: int) -> tuple[int, int]:
        """Blocks of the two sides; or the lowest with ``input_blocks`` side by side and at most ``O`` scales in all."""
        if self.output_channels is not None and self.input_channels is not None:
            return min(self.output_channels, outputs), min(self.input_channels, inputs)
        columns = min(self.input_blocks or inputs, inputs, outputs)
        width = -(-inputs // columns)
        rows = max(outputs // -(-inputs // width), 1)  # as many rows of blocks as ceil(I/n) columns leave scales for
        return -(-outputs // rows), width
