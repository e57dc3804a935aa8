"""Bits for each layer: by the lossy coding length of its weights (arXiv 2207.03088), or by what its rounding costs.

The outcome is an ordinary config with one override for each layer, so that everything after this step knows nothing
of mixed precision.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from tfptq.prepare.storage import WeightGroup, group_options, latency_budget

Batches = Iterable[Mapping[str, np.ndarray]]
Sensitivity = Callable[[Iterable[int]], Mapping[tuple[str, int], float]]


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


def sensitivity_of_layers(
    config: QuantizationConfig,
    model: keras.Model,
    batches: Batches,
    seed: int = 0,
    advance: Callable[[int], None] = lambda samples: None,
) -> Sensitivity:
    """A function that measures what rounding the layers of a Keras model costs.

    It raises a ValueError where no weight moves an output.

    Args:
        config: config with pinned layers.
        model: canonical Keras model.
        batches: samples that it is measured on.
        seed: seed of its directions.
        advance: called with the number of samples done.
    """
    layers = [layer for layer in model.layers if supports(layer) and not config.for_layer(layer.name).skip]

    def sensitivity(widths: Iterable[int]) -> dict[tuple[str, int], float]:
        errors = _output_errors(layers, widths, model, batches, seed, advance)
        if not any(errors.values()):
            raise ValueError(
                f"mixed_precision by='sensitivity': no weight of {model.name!r} moves a floating point output; "
                "take by='coding_length'"
            )
        return errors

    return sensitivity


def choose_bits(
    config: QuantizationConfig, groups: Iterable[WeightGroup], sensitivity: Sensitivity
) -> tuple[QuantizationConfig, tuple[LayerBits, ...]]:
    """Replace ``mixed_precision`` of a config with pinned edges by widths of single names, and list these.

    What has its ``weight_bits`` by an override keeps them. With nothing to do, the config stays and the list is empty.

    Args:
        config: config with pinned groups.
        groups: the weights.
        sensitivity: widths -> for the name of each group and each width, what its rounding adds to the error of the
            outputs; called when the config chooses by it.

    Raises:
        ValueError: the budget cannot be met.
    """
    settings = config.mixed_precision
    groups = _not_skipped(config, groups)
    if settings is None or not groups:
        return config, ()
    pinned, sizes = _pinned(config, groups), {group.name: group.size for group in groups}
    rates = _coding_rates(groups, settings.eps)
    if settings.by_real_bytes:
        errors = _errors(config, settings, rates, sensitivity)
        bits = _within_budgets(config, settings, groups, pinned, errors)
    elif settings.average_bits is None:
        bits = cluster_bits(rates, settings.bits, pinned)
    else:
        bits = assign_bits(rates, sizes, settings.bits, average_bits=settings.average_bits, pinned=pinned)
    table = tuple(LayerBits(name, sizes[name], rates[name], bits[name], name in pinned) for name in rates)
    chosen = tuple(override(exactly(row.layer), weight_bits=row.bits) for row in table if not row.pinned)
    return config.replace(mixed_precision=None, overrides=(*chosen, *config.overrides)), table


def distinct_ratios(
    config: QuantizationConfig, groups: Iterable[WeightGroup], sensitivity: Sensitivity, ratios: Iterable[float]
) -> tuple[float, ...]:
    """Of some values of ``mixed_precision.ratio``, the least one that leads to each choice of widths, ascending.

    For the arguments see ``choose_bits``. The errors are measured once.
    """
    settings, groups = config.mixed_precision, _not_skipped(config, groups)
    assert settings is not None and settings.by_real_bytes
    pinned, rates = _pinned(config, groups), _coding_rates(groups, settings.eps)
    errors = _errors(config, settings, rates, sensitivity)
    found: dict[tuple[int, ...], float] = {}
    for ratio in sorted(ratios):
        bits = _within_budgets(config, replace(settings, ratio=ratio), groups, pinned, errors)
        found.setdefault(tuple(bits.values()), ratio)
    return tuple(found.values())


def _not_skipped(config: QuantizationConfig, groups: Iterable[WeightGroup]) -> list[WeightGroup]:
    return [group for group in groups if not config.for_layer(group.name).keeps_weights]


def _pinned(config: QuantizationConfig, groups: Iterable[WeightGroup]) -> dict[str, int]:
    names = [group.name for group in groups if config.overrides_field(group.name, "weight_bits")]
    return {name: config.for_layer(name).weight_bits for name in names}


def _errors(
    config: QuantizationConfig, settings: MixedPrecision, rates: Mapping[str, float], sensitivity: Sensitivity
) -> dict[tuple[str, int], float]:
    """(name, width) -> what it adds to the error of the network."""
    widths = {*settings.bits, 8, *(config.for_layer(name).weight_bits for name in rates)}
    if settings.by == "coding_length":  # at high rates an error falls by a factor of 4 with each bit
        return {(name, width): 4.0 ** (rates[name] - width) for name in rates for width in widths}
    return dict(sensitivity(widths))


def _coding_rates(groups: Sequence[WeightGroup], eps: float) -> dict[str, float]:
    """Coding length per number of each group, at a distortion that is larger in a larger one.

    The network adds up the relative errors of its layers, each counting alike, while a bit more costs as many bits as
    a layer has weights. At the least total error for a number of bits, squared errors are as the numbers of weights
    (Lagrange): ``eps`` times the root of the size over the mean size.
    """
    mean = np.mean([group.size for group in groups])
    rates = {}
    for group in groups:
        distortion = eps * float(np.sqrt(group.size / mean))
        rates[group.name] = sum(coding_rate(view, distortion) * view.size for view in group.views) / group.size
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
            (spec.variable, spec.view.from_view(rounding_error(spec.values(), width))) for spec in weight_specs(layer)
        ]
        for layer in layers
        for width in widths
    }
    return output_errors(model, list(batches), changes, seed=seed, advance=advance)


def rounding_error(view: np.ndarray, bits: int) -> np.ndarray:
    """What rounding to nearest, with a scale per channel, adds to a weight ``[O, I, T]``."""
    return quantize_nearest(view, mse_scales(view, (1, view.shape[1]), bits), bits).dequantize() - view


def _within_budgets(
    config: QuantizationConfig,
    settings: MixedPrecision,
    groups: Sequence[WeightGroup],
    pinned: Mapping[str, int],
    errors: Mapping[tuple[str, int], float],
) -> dict[str, int]:
    """The widths of least error within the budgets of bytes and latency."""
    options, whole = [], 0.0
    for group in groups:
        given = pinned.get(group.name)
        (wide,) = _stored(group, config, {8})
        widths = {*settings.bits, 8} if given is None else {given}
        stored = _stored(group, config, widths) or [wide]
        if given is not None:  # whoever asks for a width has it at the price of INT8
            stored = [replace(it, latency=wide.latency) for it in stored]
        options.append([replace(it, error=errors[group.name, it.bits]) for it in stored])
        whole += wide.bytes
    bounded = config.target.costs is not None
    most_latency = latency_budget(config, groups) + 1e-9 if bounded else np.inf
    if settings.budget_bytes is not None:
        most = float(settings.budget_bytes)
    else:  # as near as the target comes to it; the report says where that is not near enough
        least = sum(it.bytes for it in fewest_bytes(options, most_latency=most_latency))
        most = max((settings.ratio or 1.0) * whole, least + 1e-9)
    chosen = choose_options(options, most_bytes=most, most_latency=most_latency)
    return {group.name: pinned.get(group.name, it.bits) for group, it in zip(groups, chosen, strict=True)}


def _stored(group: WeightGroup, config: QuantizationConfig, widths: set[int]) -> list[Option]:
    """How weights can be stored; compilers compress narrow codes in INT8, so that packed ones count there."""
    if not config.target.narrow_int8:
        return group_options(group, config, widths)
    return [Option(bits, packed_bytes(group.size, bits), latency=0.0, error=0.0) for bits in sorted(widths)]
