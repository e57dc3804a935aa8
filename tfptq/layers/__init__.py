"""Layer wrappers that simulate quantization: TFMOT's names on Keras 3. Importing it lets saved simulations load."""

from tfptq.layers.quantize import (
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_scope,
    strip,
    wrappers,
)
from tfptq.layers.quantize_config import DefaultQuantizeConfig, QuantizeConfig
from tfptq.layers.quantized_tensors import QuantizedActivation, QuantizedVariable
from tfptq.layers.quantizers import ActivationQuantizer, Quantizer, WeightQuantizer
from tfptq.layers.registry import WeightSpec, is_recurrent, is_weighted, looks_up, register, supports, weight_specs
from tfptq.layers.wrapper import QuantizeAnnotate, QuantizeWrapper

__all__ = [
    "ActivationQuantizer",
    "DefaultQuantizeConfig",
    "QuantizeAnnotate",
    "QuantizeConfig",
    "QuantizeWrapper",
    "QuantizedActivation",
    "QuantizedVariable",
    "Quantizer",
    "WeightQuantizer",
    "WeightSpec",
    "is_recurrent",
    "is_weighted",
    "looks_up",
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_scope",
    "register",
    "strip",
    "supports",
    "weight_specs",
    "wrappers",
]
