"""Bits for each layer from the lossy coding length of its weights (Attention Round, arXiv 2207.03088).

The outcome is an ordinary config with one override for each layer, so that everything after this step knows nothing
of mixed precision.
"""

import glob
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.config import QuantizationConfig, override
from tfptq.core.bit_assignment import assign_bits, cluster_bits, packed_bytes
from tfptq.core.coding_length import coding_rate
from tfptq.layers import supports, weight_specs


@dataclass(frozen=True)
class LayerBits:
    """What mixed precision decided for one layer.

    Attributes:
        weights: number of weights.
        rate: coding length in bits per number, at a distortion that grows with the layer's size.
        pinned: whether the width was given, by ``edge_bits`` or by an override.
    """

    layer: str
    weights: int
    rate: float
    bits: int
    pinned: bool

    @property
    def bytes(self) -> int:
        """Bytes of the packed codes."""
        return packed_bytes(self.weights, self.bits)


def choose_bits(config: QuantizationConfig, model: keras.Model) -> tuple[QuantizationConfig, tuple[LayerBits, ...]]:
    """Replace ``mixed_precision`` of a config with pinned edges by widths of single layers, and list these.

    Layers whose ``weight_bits`` an override sets keep them. With nothing to do, the config stays and the list is empty.
    """
    settings = config.mixed_precision
    if settings is None or not (views := _layer_views(model, config)):
        return config, ()
    pinned = {name: config.for_layer(name).weight_bits for name in views if config.overrides_field(name, "weight_bits")}
    sizes = {name: sum(part.size for part in parts) for name, parts in views.items()}
    distortions = _distortions(sizes, settings.eps)
    rates = {name: _rate(parts, distortions[name]) for name, parts in views.items()}
    if settings.average_bits is None and settings.budget_bytes is None:
        bits = cluster_bits(rates, settings.bits, pinned)
    else:
        average, budget = settings.average_bits, settings.budget_bytes
        bits = assign_bits(rates, sizes, settings.bits, average_bits=average, budget_bytes=budget, pinned=pinned)
    table = tuple(LayerBits(name, sizes[name], rates[name], bits[name], name in pinned) for name in views)
    chosen = tuple(override(glob.escape(row.layer), weight_bits=row.bits) for row in table if not row.pinned)
    return config.replace(mixed_precision=None, overrides=(*chosen, *config.overrides)), table


def _layer_views(model: keras.Model, config: QuantizationConfig) -> dict[str, list[np.ndarray]]:
    return {
        layer.name: [spec.values() for spec in weight_specs(layer)]
        for layer in model.layers
        if supports(layer) and not config.for_layer(layer.name).skip
    }


def _distortions(sizes: dict[str, int], eps: float) -> dict[str, float]:
    """Relative distortion that each layer is coded with: larger in a larger layer.

    The network adds up the relative errors of its layers, each counting alike, while a bit more costs as many bits as
    a layer has weights. At the least total error for a number of bits, squared errors are as the numbers of weights
    (Lagrange): ``eps`` times the root of the size over the mean size.
    """
    mean = np.mean(list(sizes.values()))
    return {name: eps * float(np.sqrt(size / mean)) for name, size in sizes.items()}


def _rate(parts: list[np.ndarray], eps: float) -> float:
    """Coding length per number of a layer with one or several weights."""
    return sum(coding_rate(part, eps) * part.size for part in parts) / sum(part.size for part in parts)
