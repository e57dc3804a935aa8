"""What is decided of weights before they are fitted: edges, blocks and bits of the target, mixed precision; in order.

The weights are those of the layers of a Keras model, or kernels of a float file. The outcome is an ordinary config with
overrides for single names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfptq.config import QuantizationConfig, pin, pin_edges
from tfptq.prepare.bits import Sensitivity, choose_bits
from tfptq.prepare.dynamic_blocks import with_blocks_of_target
from tfptq.prepare.storage import WeightGroup, with_bits_of_target

#: A layer at an edge that holds more of the weights is treated as all others: there 8 bits cost more than they bring.
EDGE_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights that are decided on together.

    Attributes:
        groups: what one name in the config stands for, each.
        edges: names of those next to the inputs or the outputs of the network that hold few of its weights.
        scales: names of those with one weight for each channel. They keep 8 bits, and those behind them are at the
            edges.
    """

    groups: tuple[WeightGroup, ...]
    edges: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()


def small_edges(edges: Iterable[str], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Those at the edges that hold few of the weights of a network; ``sizes`` are the numbers of all its weights."""
    return tuple(name for name in edges if sizes[name] <= EDGE_SHARE * sum(sizes.values()))


def pinned_config(config: QuantizationConfig, weights: Weights) -> QuantizationConfig:
    """The config with ``edge_bits`` applied to what is at the edges, and what the target makes of blocks and bits."""
    pinned = pin(pin_edges(config, weights.edges), weights.scales, 8)
    return with_bits_of_target(with_blocks_of_target(pinned, weights.groups), weights.groups)


def settled_config(config: QuantizationConfig, weights: Weights, sensitivity: Sensitivity) -> QuantizationConfig:
    """The pinned config with the bits that mixed precision chooses; for ``sensitivity`` see ``prepare.bits``.

    Raises:
        ValueError: a budget cannot be met.
    """
    return choose_bits(pinned_config(config, weights), weights.groups, sensitivity)[0]
