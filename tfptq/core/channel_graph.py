"""A network as the search for channel groups sees it: steps that do something with the channels of tensors.

Channels are the last axis. What a network is made of, layers of Keras or operators of a file, is the matter of those
who make the graph.

A step *follows* a ``Change`` of its input channels if its output changes in the same way:

* *permutation*: ``f(x[..., p]) = f(x)[..., p]``
* *scale* by positive factors: ``f(s * x) = s * f(x)`` (positive homogeneity)
* *rotation*: ``f(x R) = f(x) R`` (linear, and the same in all channels)

Each is narrower than the one before: sums and averages follow all three, ReLU and maxima the first two, and sigmoid a
permutation only. ReLU6 follows a scale in channels that stay below its ``clip_level`` before and after.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from functools import cached_property
from typing import Any, TypeAlias

#: What stands for a tensor; hashable.
Tensor: TypeAlias = Any


class Change(IntEnum):
    """What channels may be subjected to, everywhere at once, without changing the function of a network.

    What follows one follows those that are less.
    """

    PERMUTATION = auto()
    SCALE = auto()
    ROTATION = auto()


class Role(Enum):
    """What a step does with channels."""

    PRODUCER = auto()  #: mixes input channels into new output channels
    DEPTHWISE = auto()  #: has a filter for each channel
    PER_CHANNEL = auto()  #: has parameters for each channel
    ELEMENTWISE = auto()  #: keeps channels apart and where they are; one tensor argument
    MERGE = auto()  #: combines the same channel of several tensors
    CONCATENATE = auto()  #: puts channels side by side
    REPEAT = auto()  #: a reshape whose last axis holds all channels, over and over
    BARRIER = auto()  #: anything else


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on tensors, as a ``Change`` meets it.

    Attributes:
        name: of what holds its weights; steps of one name share them.
        inputs: the tensors whose channels it reads.
        outputs: what it computes.
        channels: number of output channels of a producer or depthwise step.
        is_free: whether the output channels of a producer may change: an activation function inside of it follows.
        repeats: how often a reshape repeats the channels.
        clip_level: number above which it cuts its output off, such as 6, or None.
        is_activation: whether it is an activation function and nothing else.
    """

    name: str
    role: Role
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    channels: int = 0
    is_free: bool = True
    repeats: int = 1
    clip_level: float | None = None
    is_activation: bool = False

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The steps of a network for one ``Change``.

    Attributes:
        change: what its roles are for.
        steps: in topological order.
        outputs: the tensors that the network returns.
        channels: number of channels of each tensor; None for one without a channel axis, or with an open number.
    """

    change: Change
    steps: tuple[Step, ...]
    outputs: frozenset[Tensor]
    channels: Mapping[Tensor, int | None]

    @cached_property
    def producers(self) -> dict[Tensor, Step]:
        """The step that computes each tensor; inputs of the network have none."""
        return {tensor: step for step in self.steps for tensor in step.outputs}

    @cached_property
    def _users(self) -> dict[Tensor, list[Step]]:
        users: dict[Tensor, list[Step]] = {}
        for step in self.steps:
            for tensor in step.inputs:
                users.setdefault(tensor, []).append(step)
        return users

    def users(self, tensor: Tensor) -> list[Step]:
        """The steps that read a tensor."""
        return self._users.get(tensor, [])


def repeats_of_channels(source: Sequence[int | None], target: Sequence[int | None]) -> int | None:
    """How often a reshape lays out the channel axis of one shape in the last axis of another; None if it does not.

    A reshape keeps the order in memory. When the last axis of the target is the product of trailing axes of the
    source, each of its positions holds the channel ``position % C``. Shapes start with the batch axis and have None for
    unknown sizes.
    """
    length = 1
    for size in reversed(source[1:]):
        if size is None:
            return None
        length *= size
        if target and length == target[-1]:
            return length // source[-1] if source[-1] else None
    return None
