"""Fields of a config that do not go together: each is right by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfptq.config.target import TARGETS, Target
from tfptq.core.affine import multipliers_of
from tfptq.tflite.operator_costs import OperatorCosts, load_operator_costs

if TYPE_CHECKING:
    from tfptq.config.config import QuantizationConfig

#: Width of weights that are float16 numbers.
FLOAT16 = 16
_SCALER_NEEDS = {
    "shift": "needs PerTensor(), where shifts stand in for channel scales, or PerBlock(m, n)",
    "integer": "needs granularity=PerBlock(m, n): integers tell blocks apart",
}


def check_combination(config: QuantizationConfig) -> None:
    """Refuse fields that do not go together; each is right by itself."""
    if config.scaler not in config.granularity.scale_kinds:
        raise ValueError(f"scaler={config.scaler!r} {_SCALER_NEEDS[config.scaler]}")
    if config.scaler == "integer":
        bits = config.weight_bits if config.mixed_precision is None else max(config.mixed_precision.bits)
        multipliers_of("integer", bits, config.multipliers)
    if config.weight_bits == FLOAT16 and config.activations != "float":
        raise ValueError(
            f"weight_bits=16 are float16 numbers, which need activations='float', not {config.activations!r}"
        )
    if config.activations == "dynamic" and not config.target.dynamic:
        able = ", ".join(repr(name) for name, target in TARGETS.items() if target.dynamic)
        raise ValueError(
            f"activations='dynamic' on target {config.target.name!r}, which has no kernels that quantize activations "
            f"at run time; targets with such kernels: {able}"
        )
    if config.activations == "auto":
        _check_islands(config)
    if not config.on_integers:
        _check_float_activations(config)


def measured_operators(target: Target) -> OperatorCosts:
    """What operators without weights take on a target, on integers and in float.

    Raises:
        ValueError: they were not measured there.
    """
    costs = None if target.costs is None else load_operator_costs(target.costs)
    if costs is None:
        able = ", ".join(repr(name) for name, it in TARGETS.items() if it.costs and load_operator_costs(it.costs))
        raise ValueError(
            f"activations='auto' on target {target.name!r}, where operators in float were not measured beside those on "
            f"integers; targets with such costs: {able}. Or name operators for float by overrides with skip=True"
        )
    return costs


def _check_islands(config: QuantizationConfig) -> None:
    """Refuse islands where nothing says what they cost, or where they bring nothing."""
    measured_operators(config.target)
    if config.activation_bits == 16:
        raise ValueError(
            "activation_bits=16 with activations='auto': 16-bit activations hold without islands in float; take "
            "activations='static'"
        )


def _check_float_activations(config: QuantizationConfig) -> None:
    """Refuse what goes with integers alone."""
    if config.interface_types != ("float32", "float32"):
        raise ValueError(
            f"activations={config.activations!r} leaves inputs and outputs in float32, not {config.interface_types}; "
            "take input_type='float32', output_type='float32' and a target with float ends, or activations='static'"
        )
    if config.activation_bits != 8:
        raise ValueError(
            f"activation_bits={config.activation_bits} has no effect with activations={config.activations!r}: kernels "
            "that quantize float activations take 8 bits"
        )
