"""The ready-made configs."""

from tfptq.config.config import PRESETS, QuantizationConfig
from tfptq.config.parts import MixedPrecision, Rounding
from tfptq.core.granularity import PerBlock, PerChannel, PerTensor

_LEARNED_4_BIT = QuantizationConfig(
    PerChannel(),
    weight_bits=4,
    weight_scale="output",
    rounding=Rounding("attention"),
    equalize=True,
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
    edge_bits=None,
)
#: At 8 bits the error of the small kernels of the first layers weighs most, and costs least to learn.
_LEARNED_8_BIT = QuantizationConfig(
    rounding=Rounding("coordinate", most_inputs=640), statistics_samples=128, equalize=True
)
PRESETS |= {
    "w8a8_shift": _LEARNED_8_BIT.replace(scaler="shift", weight_scale="mse"),
    "w8a8_channel": _LEARNED_8_BIT.replace(granularity=PerChannel()),
    "w8a8_layer": QuantizationConfig(PerTensor()),
    "w4a8_channel": _LEARNED_4_BIT,
    "w4a8_block": _BLOCKS_4_BIT,
    "w4a8_fine_block": _BLOCKS_4_BIT.replace(granularity=PerBlock(1, 16)),
    "w4a8_mixed": _LEARNED_4_BIT.replace(mixed_precision=MixedPrecision((4, 8), "sensitivity", ratio=0.54)),
    "w8_dynamic": QuantizationConfig(
        PerChannel(),
        activations="dynamic",
        weight_scale="mse",
        rounding=Rounding("coordinate", most_inputs=640),
        statistics_samples=128,
    ),
    "w4_dynamic_channel": _DYNAMIC_4_BIT,
    "w4_dynamic_block": _DYNAMIC_4_BIT.replace(granularity=PerBlock(1, 32), reorder=True),
    "float16": QuantizationConfig(
        PerChannel(), activations="float", weight_bits=16, bias_correction=False, edge_bits=None
    ),
    "w2_mixed": _LEARNED_4_BIT.replace(mixed_precision=MixedPrecision((2, 4, 8), "sensitivity", ratio=0.42)),
}
