"""How to quantize: frozen dataclasses, presets, JSON, validation."""

from tfptq.config.combinations import FLOAT16, measured_operators
from tfptq.config.config import BASELINE, DEFAULT_PRESET, QuantizationConfig
from tfptq.config.fields import COMPUTES, LAYOUTS
from tfptq.config.parts import (
    LAYER_FIELDS,
    Calibration,
    LayerOverride,
    MixedPrecision,
    Rounding,
    exactly,
    override,
)
from tfptq.config.pins import check_overrides, pin, pin_edges
from tfptq.config.presets import PRESETS, resolve_config
from tfptq.config.target import TARGETS, Target
from tfptq.core.granularity import Granularity, PerBlock, PerChannel, PerTensor

__all__ = [
    "BASELINE",
    "COMPUTES",
    "DEFAULT_PRESET",
    "FLOAT16",
    "LAYER_FIELDS",
    "LAYOUTS",
    "PRESETS",
    "TARGETS",
    "Calibration",
    "Granularity",
    "LayerOverride",
    "MixedPrecision",
    "PerBlock",
    "PerChannel",
    "PerTensor",
    "QuantizationConfig",
    "Rounding",
    "Target",
    "check_overrides",
    "exactly",
    "measured_operators",
    "override",
    "pin",
    "pin_edges",
    "resolve_config",
]
