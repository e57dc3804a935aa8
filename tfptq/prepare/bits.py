"""Bits for each layer: by the lossy coding length of its weights (arXiv 2207.03088), or by what its rounding costs.

The outcome is an ordinary config with one override for each layer, so that everything after this step knows nothing
of mixed precision.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from tfptq.config import MixedPrecision, QuantizationConfig, exactly, override
from tfptq.core.bit_assignment import assign_bits, cluster_bits, packed_bytes
from tfptq.core.blocks import quantize_nearest
from tfptq.core.budget import Option, choose_options, fewest_bytes
from tfptq.core.coding_length import coding_rate
from tfptq.core.weight_scales import mse_scales
from tfptq.layers import supports, weight_specs
from tfptq.prepare.sensitivity import output_errors
from tfptq.prepare.storage import latency_budget, layer_options

Batches = Iterable[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class LayerBits:
    """What mixed precision decided for one layer.

    Attributes:
        weights: number of weights.
        rate: coding length in bits per number, at a distortion that grows with the layer's size.
        pinned: whether the width was given, by ``edge_bits``, by the target or by an override.
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


def choose_bits(
    config: QuantizationConfig,
    model: keras.Model,
    batches: Batches = (),
    seed: int = 0,
    advance: Callable[[int], None] = lambda samples: None,
) -> tuple[QuantizationConfig, tuple[LayerBits, ...]]:
    """Replace ``mixed_precision`` of a config with pinned edges by widths of single layers, and list these.

    Layers whose ``weight_bits`` an override sets keep them. With nothing to do, the config stays and the list is empty.

    Args:
        config: config with pinned layers.
        model: canonical Keras model.
        batches: samples that the sensitivity is measured on.
        seed: seed of its directions.
        advance: called with the number of samples done.

    Raises:
        ValueError: the budget cannot be met.
    """
    settings = config.mixed_precision
    layers = _layers(config, model)
    if settings is None or not layers:
        return config, ()
    pinned, sizes = _pinned(config, layers), _sizes(layers)
    rates = _coding_rates(layers, sizes, settings.eps)
    if settings.by_real_bytes:
        errors = _errors(config, settings, layers, rates, model, batches, seed, advance)
        bits = _within_budgets(config, settings, layers, pinned, errors)
    elif settings.average_bits is None:
        bits = cluster_bits(rates, settings.bits, pinned)
    else:
        bits = assign_bits(rates, sizes, settings.bits, average_bits=settings.average_bits, pinned=pinned)
    table = tuple(LayerBits(name, sizes[name], rates[name], bits[name], name in pinned) for name in rates)
    chosen = tuple(override(exactly(row.layer), weight_bits=row.bits) for row in table if not row.pinned)
    return config.replace(mixed_precision=None, overrides=(*chosen, *config.overrides)), table


def distinct_ratios(
    config: QuantizationConfig, model: keras.Model, batches: Batches, ratios: Iterable[float], seed: int = 0
) -> tuple[float, ...]:
    """Of some values of ``mixed_precision.ratio``, the least one that leads to each choice of widths, ascending.

    For the arguments see ``choose_bits``. The errors are measured once.
    """
    settings, layers = config.mixed_precision, _layers(config, model)
    assert settings is not None and settings.by_real_bytes
    pinned, rates = _pinned(config, layers), _coding_rates(layers, _sizes(layers), settings.eps)
    errors = _errors(config, settings, layers, rates, model, batches, seed, lambda samples: None)
    found: dict[tuple[int, ...], float] = {}
    for ratio in sorted(ratios):
        bits = _within_budgets(config, replace(settings, ratio=ratio), layers, pinned, errors)
        found.setdefault(tuple(bits.values()), ratio)
    return tuple(found.values())


def _layers(config: QuantizationConfig, model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if supports(layer) and not config.for_layer(layer.name).keeps_weights]


def _pinned(config: QuantizationConfig, layers: Iterable[keras.Layer]) -> dict[str, int]:
    names = [layer.name for layer in layers if config.overrides_field(layer.name, "weight_bits")]
    return {name: config.for_layer(name).weight_bits for name in names}


def _sizes(layers: Iterable[keras.Layer]) -> dict[str, int]:
    return {layer.name: sum(spec.values().size for spec in weight_specs(layer)) for layer in layers}


def _errors(
    config: QuantizationConfig,
    settings: MixedPrecision,
    layers: list[keras.Layer],
    rates: Mapping[str, float],
    model: keras.Model,
    batches: Batches,
    seed: int,
    advance: Callable[[int], None],
) -> dict[tuple[str, int], float]:
    """(layer, width) -> what it adds to the error of the network.

    Raises:
        ValueError: no weight moves an output.
    """
    widths = {*settings.bits, 8, *(config.for_layer(name).weight_bits for name in rates)}
    if settings.by == "coding_length":  # at high rates an error falls by a factor of 4 with each bit
        return {(name, width): 4.0 ** (rates[name] - width) for name in rates for width in widths}
    errors = _output_errors(layers, widths, model, batches, seed, advance)
    if not any(errors.values()):
        raise ValueError(
            f"mixed_precision by='sensitivity': no weight of {model.name!r} moves a floating point output; "
            "take by='coding_length'"
        )
    return errors


def _coding_rates(layers: Iterable[keras.Layer], sizes: Mapping[str, int], eps: float) -> dict[str, float]:
    """Coding length per number of each layer, at a distortion that is larger in a larger layer.

    The network adds up the relative errors of its layers, each counting alike, while a bit more costs as many bits as
    a layer has weights. At the least total error for a number of bits, squared errors are as the numbers of weights
    (Lagrange): ``eps`` times the root of the size over the mean size.
    """
    mean = np.mean(list(sizes.values()))
    rates = {}
    for layer in layers:
        views = [spec.values() for spec in weight_specs(layer)]
        distortion = eps * float(np.sqrt(sizes[layer.name] / mean))
        rates[layer.name] = sum(coding_rate(view, distortion) * view.size for view in views) / sizes[layer.name]
    return rates


def _output_errors(
    layers: Iterable[keras.Layer],
    widths: Iterable[int],
    model: keras.Model,
    batches: Batches,
    seed: int,
    advance: Callable[[int], None],
) -> dict[tuple[str, int], float]:
    """(layer, width) -> what the rounding of the layer adds to the error of the outputs."""
    changes = {
        (layer.name, width): [
            (spec.variable, spec.view.from_view(_rounding_error(spec.values(), width))) for spec in weight_specs(layer)
        ]
        for layer in layers
        for width in widths
    }
    return output_errors(model, list(batches), changes, seed=seed, advance=advance)


def _rounding_error(view: np.ndarray, bits: int) -> np.ndarray:
    """What rounding to nearest, with a scale per channel, adds to a weight ``[O, I, T]``."""
    return quantize_nearest(view, mse_scales(view, (1, view.shape[1]), bits), bits).dequantize() - view


def _within_budgets(
    config: QuantizationConfig,
    settings: MixedPrecision,
    layers: list[keras.Layer],
    pinned: Mapping[str, int],
    errors: Mapping[tuple[str, int], float],
) -> dict[str, int]:
    """The widths of least error within the budgets of bytes and latency."""
    options, whole = [], 0.0
    for layer in layers:
        given = pinned.get(layer.name)
        (wide,) = _stored(layer, config, {8})
        widths = {*settings.bits, 8} if given is None else {given}
        stored = _stored(layer, config, widths) or [wide]
        if given is not None:  # whoever asks for a width has it at the price of INT8
            stored = [replace(it, latency=wide.latency) for it in stored]
        options.append([replace(it, error=errors[layer.name, it.bits]) for it in stored])
        whole += wide.bytes
    bounded = config.target.costs is not None
    most_latency = latency_budget(config, layers) + 1e-9 if bounded else np.inf
    if settings.budget_bytes is not None:
        most = float(settings.budget_bytes)
    else:  # as near as the target comes to it; the report says where that is not near enough
        least = sum(it.bytes for it in fewest_bytes(options, most_latency=most_latency))
        most = max((settings.ratio or 1.0) * whole, least + 1e-9)
    chosen = choose_options(options, most_bytes=most, most_latency=most_latency)
    return {layer.name: pinned.get(layer.name, it.bits) for layer, it in zip(layers, chosen, strict=True)}


def _stored(layer: keras.Layer, config: QuantizationConfig, widths: set[int]) -> list[Option]:
    """How a layer can be stored; compilers compress narrow codes in INT8, so that packed ones count there."""
    if not config.target.narrow_int8:
        return layer_options(layer, config, widths)
    size = sum(spec.values().size for spec in weight_specs(layer))
    return [Option(bits, packed_bytes(size, bits), latency=0.0, error=0.0) for bits in sorted(widths)]
