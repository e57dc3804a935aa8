"""The ready-made configs."""

from tfptq.base.text import kind_of
from tfptq.config.config import DEFAULT_PRESET, PRESETS, QuantizationConfig
from tfptq.config.parts import MixedPrecision, Rounding
from tfptq.core.granularity import PerBlock, PerChannel, PerTensor

_LEARNED_4_BIT = QuantizationConfig(
    PerChannel(),
    weight_bits=4,
    weight_scale="output",
    rounding=Rounding("attention"),
    statistics_samples=None,
    rotate=True,
)
_BLOCKS_4_BIT = _LEARNED_4_BIT.replace(
    granularity=PerBlock(input_blocks=4), scaler="integer", reorder=True, target="npu"
)
#: Float activations, which kernels quantize row by row: what is learned has the exact inputs of the layer.
_DYNAMIC_4_BIT = QuantizationConfig(
    PerChannel(),
    weight_bits=4,
    activations="dynamic",
    weight_scale="output",
    rounding=Rounding("attention"),
    statistics_samples=None,
    equalize=False,
    edge_bits=None,
)
PRESETS |= {
    # Only kernels of few inputs learn their rounding: at 8 bits the error of the small kernels of the first layers
    # weighs most, and costs least to learn.
    DEFAULT_PRESET: QuantizationConfig(),
    "w8a8_channel": QuantizationConfig(PerChannel(), weight_scale="max_abs"),
    "w8a8_layer": QuantizationConfig(
        PerTensor(),
        scaler="float",
        weight_scale="max_abs",
        rounding="nearest",
        statistics_samples=None,
        equalize=False,
    ),
    "w4a8_channel": _LEARNED_4_BIT,
    "w4a8_block": _BLOCKS_4_BIT,
    "w4a8_fine_block": _BLOCKS_4_BIT.replace(granularity=PerBlock(1, 16)),
    "w4a8_mixed": _LEARNED_4_BIT.replace(mixed_precision=MixedPrecision((4, 8), "sensitivity", ratio=0.54)),
    "w8_dynamic": QuantizationConfig(PerChannel(), activations="dynamic", equalize=False),
    "w4_dynamic_channel": _DYNAMIC_4_BIT,
    "w4_dynamic_block": _DYNAMIC_4_BIT.replace(granularity=PerBlock(1, 32), reorder=True),
    "float16": QuantizationConfig(
        PerChannel(),
        activations="float",
        weight_bits=16,
        weight_scale="max_abs",
        rounding="nearest",
        statistics_samples=None,
        equalize=False,
        bias_correction=False,
        edge_bits=None,
    ),
    "w2_mixed": _LEARNED_4_BIT.replace(mixed_precision=MixedPrecision((2, 4, 8), "sensitivity", ratio=0.42)),
}


def resolve_config(config: QuantizationConfig | str | None) -> QuantizationConfig:
    """Turn what users pass as ``config=`` into a config: a config, a preset's name, or None for the default."""
    if config is None:
        return QuantizationConfig.from_preset(DEFAULT_PRESET)
    if isinstance(config, str):
        if config.endswith(".json"):
            read = "QuantizationConfig.from_json(Path(...).read_text())"
            raise ValueError(f"config is {config!r}; pass a preset's name, or read the file with {read}")
        return QuantizationConfig.from_preset(config)
    if isinstance(config, QuantizationConfig):
        return config
    raise TypeError(
        f"config is {kind_of(config)}; pass a QuantizationConfig, such as QuantizationConfig(weight_bits=4), or the "
        "name of a preset"
    )
