"""How to quantize: frozen dataclasses, presets, JSON, validation."""

from tfptq.config.config import (
    COMPUTES,
    DEFAULT_PRESET,
    FLOAT16,
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
    "override",
    "resolve_config",
]
