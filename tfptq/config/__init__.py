"""How to quantize: frozen dataclasses, presets, JSON, validation."""

from tfptq.config.config import (
    DEFAULT_PRESET,
    LAYOUTS,
    QuantizationConfig,
    resolve_config,
)
from tfptq.config.parts import (
    LAYER_FIELDS,
    Calibration,
    LayerOverride,
    MixedPrecision,
    Rounding,
    override,
)
from tfptq.config.presets import PRESETS
from tfptq.config.target import TARGETS, Target
from tfptq.core.granularity import Granularity, PerBlock, PerChannel, PerTensor

__all__ = [
    "DEFAULT_PRESET",
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
    "override",
    "resolve_config",
]
