"""What single layers of a model make of a config: widths that are pinned, and overrides that have to fit."""

from collections.abc import Collection, Iterable
from typing import Any

from tfptq.base.arguments import did_you_mean
from tfptq.config.config import QuantizationConfig
from tfptq.config.parts import LayerOverride, exactly, override
from tfptq.core.granularity import PerChannel
from tfptq.tflite.layouts import INT8, POLICIES


def pin_edges(config: QuantizationConfig, layer_names: Iterable[str]) -> QuantizationConfig:
    """The config with its ``edge_bits`` for the layers at the edges of a model, see ``pin``."""
    return config if config.edge_bits is None else pin(config, layer_names, config.edge_bits)


def pin(config: QuantizationConfig, layer_names: Iterable[str], bits: int) -> QuantizationConfig:
    """The config with at least so many bits for the weights of some layers.

    Overrides of the user win over the width. A layer that has the width, by the pin or by an override, gets a float
    scale per channel where others have blocks, and codes of 8 bits where others have a layout for fewer, unless an
    override names that very layer, and for it blocks or a layout.
    """
    narrowest = config.weight_bits if config.mixed_precision is None else min(config.mixed_precision.bits)
    if bits <= narrowest:
        return config
    pins = {name: _pin(config, name, bits) for name in layer_names}
    found = tuple(override(exactly(name), **changes) for name, changes in pins.items() if changes)
    return config.replace(overrides=(*config.overrides, *found))


def _pin(config: QuantizationConfig, layer_name: str, bits: int) -> dict[str, Any]:
    """What to change of a pinned layer, after the overrides of the user."""
    found = config.overridden(layer_name)
    settled = {**vars(config), "weight_bits": bits, **{field: value for field, (_, value) in found.items()}}
    if settled["weight_bits"] < bits:
        return {}
    changes: dict[str, Any] = {} if "weight_bits" in found else {"weight_bits": bits}
    own = {field: value for field, (item, value) in found.items() if item.names(layer_name)}
    if settled["granularity"].has_blocks:
        if "granularity" in own or own.get("scaler", "float") != "float":
            return changes
        changes.update(granularity=PerChannel(), scaler="float")
    if settled["layout"] not in POLICIES and "layout" not in own:
        changes["layout"] = INT8.name
    return changes


def check_overrides(
    config: QuantizationConfig, layer_names: list[str], matched: Collection[LayerOverride] = ()
) -> None:
    """Refuse overrides that match no layer, or do not fit a layer, and to skip all layers.

    ``matched`` are those that need not match a layer: they have an operator of the file, or may have one.
    """
    for item in config.overrides:
        if item not in matched and not any(map(item.matches, layer_names)):
            halves = list(filter(item.matches_whole_of, layer_names))
            raise ValueError(
                f"the override pattern {item.pattern!r} matches no weighted layer; "
                + (f"separable convolutions are split into halves: {', '.join(halves)}; " if halves else "")
                + f"there are: {', '.join(layer_names) or 'none that tfptq knows'}"
                + did_you_mean(item.pattern, layer_names)
            )
    configs = [config.for_layer(name) for name in layer_names]
    if configs and all(item.skip for item in configs):
        raise ValueError("the config skips all weighted layers; leave at least one to quantize")
