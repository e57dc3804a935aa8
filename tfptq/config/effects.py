"""Fields of a config that would have no effect, and what would give them one.

A switch that nothing reads is refused by name, so that nobody takes it for what made the difference. What counts is the
model as a whole: a field that some layer reads by an override has an effect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfptq.config.config import QuantizationConfig

#: A config as it is and once with each of its overrides.
Variants = Sequence["QuantizationConfig"]


@dataclass(frozen=True)
class Effect:
    """When a field has an effect."""

    field: str  # of ``QuantizationConfig``; None or False switches it off
    holds: Callable[[Variants], bool]  # whether it has one
    reason: str  # why it has none else, and what to do


def _statistics(variants: Variants) -> bool:
    return any(item.weight_scale == "output" or item.rounding.learns for item in variants)


def _narrow_weights(variants: Variants) -> bool:
    whole, *overridden = variants
    widths = (whole.weight_bits,) if whole.mixed_precision is None else whole.mixed_precision.bits
    return any(width < 8 for width in (*widths, *(item.weight_bits for item in overridden)))


_WITHOUT_STATISTICS = "no weight is fitted on statistics; give weight_scale='output' or a rounding method that learns"

#: In the order in which they are checked.
EFFECTS = (
    Effect(
        "activation_aware",
        lambda variants: variants[0].activation_bits <= 8,
        "16-bit activations are as good as float ones for fitting weights; give activation_bits of 8 or less",
    ),
    Effect(
        "activation_aware",
        lambda variants: variants[0].on_integers,
        "activations of the file are float, and have no grid; give activations='static'",
    ),
    Effect("activation_aware", _statistics, _WITHOUT_STATISTICS),
    Effect("statistics_samples", _statistics, _WITHOUT_STATISTICS),
    Effect(
        "multipliers",
        lambda variants: any(item.scaler == "integer" for item in variants),
        "only scaler='integer' chooses integers, and no layer has it; give it as well",
    ),
    Effect(
        "rotate",
        _narrow_weights,
        "weights of 8 bits are not rotated, and no layer has fewer; give fewer weight_bits",
    ),
    Effect(
        "reorder",
        lambda variants: any(item.granularity.has_blocks for item in variants),
        "channels are reordered for blocks, and no layer has them; give granularity=PerBlock(m, n)",
    ),
)


def without_effect(variants: Variants) -> dict[str, str]:
    """Field -> what is wrong, of the fields that are set, to other values than their defaults, and have no effect."""
    defaults = {field.name: field.default for field in dataclasses.fields(variants[0])}
    found: dict[str, str] = {}
    for effect in EFFECTS:
        values = [getattr(item, effect.field) for item in variants]
        given = [value for value in values if value not in (None, False, defaults[effect.field])]
        if given and effect.field not in found and not effect.holds(variants):
            found[effect.field] = f"{effect.field}={given[0]!r} has no effect: {effect.reason}, or leave it out"
    return found
