"""A float network whose channels can be moved: a canonical Keras model, or a float file where no Keras graph is known.

What equalizes, rotates and reorders channels works on either.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

import keras
import numpy as np

from tfptq.core.channel_graph import Change, ChannelGraph, Tensor
from tfptq.core.channel_headroom import ChannelStatistics
from tfptq.core.channel_moves import Move
from tfptq.float_file import channel_steps as file_steps
from tfptq.float_file import move_channels as file_moves
from tfptq.float_file import observe_channels as file_observers
from tfptq.float_file.file_model import FileModel
from tfptq.graph import move_channels
from tfptq.graph.channel_steps import channel_graph
from tfptq.graph.observe_channels import ChannelObserver
from tfptq.graph.read_graph import read_graph
from tfptq.layers import supports, weight_specs

Model: TypeAlias = keras.Model | FileModel


class Observer(Protocol):
    """Observes the channels of some tensors."""

    def observe(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Mapping[Tensor, ChannelStatistics]:
        """Statistics of all samples; at least one batch, input name -> samples."""


class ChannelNetwork(Protocol):
    """A float network, as the steps see it that move its channels."""

    @property
    def model(self) -> Model:
        """The Keras model or float file."""

    @property
    def names(self) -> Sequence[str]:
        """Names that configs have for the weights that can be quantized."""

    def kernel(self, name: str) -> np.ndarray | None:
        """The kernel ``[O, I, T]`` of a name; None where that has no weights of its own, or several."""

    def graph(self, change: Change) -> ChannelGraph:
        """Its steps for a change."""

    def observer(self, tensors: Sequence[Tensor]) -> Observer:
        """What observes some tensors of its graphs."""

    def moved(self, move: Move) -> "ChannelNetwork":
        """The network after a move of groups of one of its graphs."""


def channel_network(model: Model) -> ChannelNetwork:
    """The network of a canonical Keras model or a float file."""
    return _FileNetwork(model) if isinstance(model, FileModel) else _KerasNetwork(model)


class _KerasNetwork:
    """A canonical Keras model; names are those of its layers."""

    def __init__(self, model: keras.Model):
        self.model = model
        self._read = read_graph(model)
        self.names = [layer.name for layer in model.layers if supports(layer)]

    def kernel(self, name: str) -> np.ndarray | None:
        layer = self.model.get_layer(name)
        specs = weight_specs(layer) if supports(layer) else ()
        return specs[0].values() if len(specs) == 1 else None

    def graph(self, change: Change) -> ChannelGraph:
        return channel_graph(self._read, change)

    def observer(self, tensors: Sequence[Tensor]) -> Observer:
        return ChannelObserver(self._read, tensors)

    def moved(self, move: Move) -> "_KerasNetwork":
        return _KerasNetwork(move_channels(self.model, move))


class _FileNetwork:
    """A float file; names are those of its kernels."""

    def __init__(self, model: FileModel):
        self.model = model

    @property
    def names(self) -> Sequence[str]:
        return list(self._kernels)

    @cached_property
    def _kernels(self) -> dict[str, np.ndarray]:
        return {kernel.id.owner: kernel.values for kernel in self.model.float_file.kernels}

    def kernel(self, name: str) -> np.ndarray | None:
        return self._kernels.get(name)

    def graph(self, change: Change) -> ChannelGraph:
        return file_steps.channel_graph(self.model.float_file, change)

    def observer(self, tensors: Sequence[Tensor]) -> Observer:
        return file_observers.ChannelObserver(self.model.float_file, tensors)

    def moved(self, move: Move) -> "_FileNetwork":
        moved = file_moves.move_channels(self.model.float_file, move)
        return _FileNetwork(self.model.with_file(moved))
