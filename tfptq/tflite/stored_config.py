"""The quantization config in the block metadata: a JSON object without what ``docs/format.md`` fixes."""

from typing import Any

from tfptq.base.json_object import read_object

#: What stands for the fields that are left out. It never changes: files that were written before a field came up, or a
#: default of the config became another one, mean this.
LEFT_OUT: dict[str, Any] = {
    "granularity": {"type": "PerTensor"},
    "scaler": "float",
    "weight_bits": 8,
    "activations": "static",
    "activation_bits": 8,
    "activation_aware": False,
    "weight_scale": "max_abs",
    "rounding": {
        "method": "nearest",
        "steps": 500,
        "learning_rate": None,
        "tau": 0.5,
        "damping": 0.2,
        "most_inputs": None,
    },
    "statistics_samples": None,
    "equalize": False,
    "rotate": False,
    "reorder": False,
    "mixed_precision": None,
    "edge_bits": 8,
    "target": "cpu",
    "batch_size": None,
    "unroll_steps": 0,
    "latency_budget": 1.35,
    "layout": "size",
    "multipliers": None,
    "calibration": {"method": "mse", "percentile": 99.99, "bins": 2048},
    "bias_correction": True,
    "skip": False,
    "overrides": [],
    "tail": [],
    "input_type": None,
    "output_type": None,
    "metadata": "full",
    "name": "custom",
}


def whole_config(text: str) -> dict[str, Any]:
    """The config of the metadata with all its fields."""
    return {**LEFT_OUT, **read_object(text)}
