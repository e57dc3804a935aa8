"""A config without all that is learned or moved, for tests that look at one thing."""

from typing import Any

from tfptq.config import Granularity, PerTensor, QuantizationConfig

#: Scales from the largest weight, codes rounded to nearest.
_PLAIN = {
    "weight_scale": "max_abs",
    "rounding": "nearest",
    "statistics_samples": None,
    "equalize": False,
    "name": "custom",
}


def plain_config(
    granularity: Granularity | None = None, scaler: str = "float", weight_bits: int = 8, **changes: Any
) -> QuantizationConfig:
    """The config of these fields; others are as in ``_PLAIN``, and the rest has the defaults of the class."""
    return QuantizationConfig(granularity or PerTensor(), scaler, weight_bits, **{**_PLAIN, **changes})
