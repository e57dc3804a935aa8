"""Fields of a config one by one: what names and lists stand for, and which values each field may have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tfptq.base.arguments import between, check_types, one_of, plain
from tfptq.config.combinations import FLOAT16
from tfptq.config.parts import Calibration, Rounding
from tfptq.config.target import Target
from tfptq.core.affine import ACTIVATION_BITS, LARGEST_MULTIPLIER, SCALE_KINDS, WEIGHT_BITS
from tfptq.core.granularity import Granularity, PerTensor
from tfptq.tflite.layouts import LAYOUTS as REGISTERED_LAYOUTS
from tfptq.tflite.layouts import POLICIES, Computes

if TYPE_CHECKING:
    from tfptq.config.config import QuantizationConfig

#: How the codes of a kernel may be stored in the file.
LAYOUTS = (*POLICIES, *(layout.name for layout in REGISTERED_LAYOUTS))
#: What the activations of the file are -> what operators with a kernel compute on.
COMPUTES = {
    "static": Computes.INTEGER,
    "auto": Computes.INTEGER,
    "dynamic": Computes.DYNAMIC,
    "float": Computes.FLOAT,
}
#: What a file says of its own weights.
METADATA = ("full", "none")


def resolved_fields(config: QuantizationConfig) -> dict[str, Any]:
    """Field -> value, where a name stands for an object, a list for a tuple, or ``"auto"`` for a scaler."""
    found: dict[str, Any] = {"target": Target.from_plain(config.target)}
    if isinstance(config.rounding, str):
        found["rounding"] = Rounding(config.rounding)
    if isinstance(config.calibration, str):
        found["calibration"] = Calibration(config.calibration)
    if isinstance(config.tail, str | list):
        found["tail"] = (config.tail,) if isinstance(config.tail, str) else tuple(config.tail)
    if isinstance(config.overrides, Iterable):
        found["overrides"] = tuple(config.overrides)
    if isinstance(config.multipliers, tuple | list) and config.multipliers:
        found["multipliers"] = plain(config.multipliers)
    if config.scaler == "auto":
        found["scaler"] = "shift" if isinstance(config.granularity, PerTensor) else "float"
    return found


def check_fields(config: QuantizationConfig) -> None:
    """Refuse values that a field may not have (ValueError); ``check_combination`` knows which do not go together."""
    if not isinstance(config.granularity, Granularity):
        raise ValueError(
            f"granularity is {config.granularity!r}; it must be an object such as PerTensor() or PerChannel()"
        )
    between("unroll_steps", config.unroll_steps, 0, 2**16)
    between("latency_budget", config.latency_budget, 1.0, 1000.0)
    one_of("scaler", config.scaler, SCALE_KINDS)
    if config.multipliers is not None:
        if not isinstance(config.multipliers, tuple) or not config.multipliers:
            raise ValueError(f"multipliers is {config.multipliers!r}; give a tuple such as (2, 3, 4, 6), or None")
        for value in config.multipliers:
            one_of("multipliers", value, range(1, LARGEST_MULTIPLIER + 1))
    one_of("batch_size", config.batch_size, (None, 1))
    one_of("layout", config.layout, LAYOUTS)
    one_of("metadata", config.metadata, METADATA)
    one_of("edge_bits", config.edge_bits, (None, *WEIGHT_BITS))
    one_of("activations", config.activations, COMPUTES)
    one_of("weight_bits", config.weight_bits, (*WEIGHT_BITS, FLOAT16))
    one_of("activation_bits", config.activation_bits, ACTIVATION_BITS)
    check_types(config)
    one_of("weight_scale", config.weight_scale, ("max_abs", "mse", "output"))
    for field in ("input_type", "output_type"):
        allowed = ("float32", "int16") if config.activation_bits == 16 else ("float32", "int8", "uint8")
        one_of(f"{field} (with activation_bits={config.activation_bits})", getattr(config, field), (None, *allowed))
    if config.statistics_samples is not None:
        between("statistics_samples", config.statistics_samples, 1, 2**40)
