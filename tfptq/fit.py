"""Fit the weights of a model: scales, codes and biases, from what calibration measured.

Every function here takes values and returns values. The mathematics is in ``tfptq.core``; this module decides
in which order it is applied to the weights of a model, and what each weight is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.config import PerChannel, QuantizationConfig
from tfptq.core.affine import ActivationGrid
from tfptq.core.bias_correction import correct_bias, limit_scales_for_bias
from tfptq.core.blocks import QuantizedWeight, quantize_nearest
from tfptq.core.weight_scales import fit_scales
from tfptq.tflite.calibrate import Measurements
from tfptq.tflite.matching import WeightBinding, WeightKey
from tfptq.tflite.skeleton import Skeleton

#: What a kernel gets that is not the weight of any Keras layer (the converter made or changed it).
UNMATCHED_CONFIG = QuantizationConfig(PerChannel())


@dataclass(frozen=True, eq=False)
class FittedWeight:
    """A quantized weight and the correction of its layer's bias.

    Attributes:
        weight: codes and scales.
        bias_shift: float32 ``[O]`` to add to the float bias; zeros without bias correction.
        bindings: the uses of the weight in the skeleton.
    """

    weight: QuantizedWeight
    bias_shift: np.ndarray
    bindings: tuple[WeightBinding, ...]


def uses(bindings: tuple[WeightBinding, ...]) -> dict[WeightKey | int, tuple[WeightBinding, ...]]:
    """Group the uses of kernels by Keras weight; a kernel that is nobody's goes by its tensor index."""
    grouped: dict[WeightKey | int, tuple[WeightBinding, ...]] = {}
    for binding in bindings:
        key = binding.kernel if binding.key is None else binding.key
        grouped[key] = (*grouped.get(key, ()), binding)
    return grouped


def fit_weights(
    skeleton: Skeleton,
    bindings: tuple[WeightBinding, ...],
    weights: Mapping[WeightKey, np.ndarray],
    measurements: Measurements,
    grids: Mapping[int, ActivationGrid],
    config_of: Callable[[WeightKey], QuantizationConfig],
    advance: Callable[[int], None] = lambda done: None,
) -> dict[WeightKey | int, FittedWeight]:
    """Quantize all kernels of a skeleton.

    Args:
        skeleton: float model.
        bindings: the uses of kernels to quantize.
        weights: Keras weights as canonical views ``[O, I, T]``.
        measurements: what calibration measured.
        grids: integer grids of the activations.
        config_of: config of the layer of a Keras weight.
        advance: called with the number of weights done.

    Returns:
        Keras weight (or, for a kernel that is nobody's, its tensor index) -> fitted weight.
    """
    fitted = {}
    for key, places in uses(bindings).items():
        matched = isinstance(key, tuple)
        view = weights[key] if matched else skeleton.kernel(places[0])
        config = config_of(key) if matched else UNMATCHED_CONFIG
        fitted[key] = fit_weight(view, config, skeleton, places, measurements, grids)
        advance(1)
    return fitted


def fit_weight(
    view: np.ndarray,
    config: QuantizationConfig,
    skeleton: Skeleton,
    places: tuple[WeightBinding, ...],
    measurements: Measurements,
    grids: Mapping[int, ActivationGrid],
) -> FittedWeight:
    """Quantize one weight.

    Args:
        view: float ``[O, I, T]``.
        config: config of its layer.
        skeleton: float model.
        places: the uses of the weight.
        measurements: what calibration measured.
        grids: integer grids of the activations.
    """
    scales = fit_scales(view, config)
    for place in places:
        bias = skeleton.bias(place)
        if bias is not None:
            scales = limit_scales_for_bias(scales, bias / _factors(place), grids[place.input].scale)
    weight = quantize_nearest(view, scales, config.weight_bits)
    shift = np.zeros(len(view), np.float32)
    if config.bias_correction:
        # A layer used several times has one bias: it takes the mean of what each use would want.
        wanted = [
            correct_bias(shift, view, weight.dequantize(), measurements.input_means[place.operator]) for place in places
        ]
        shift = np.mean(wanted, axis=0, dtype=np.float32)
    return FittedWeight(weight, shift, places)


def _factors(place: WeightBinding) -> np.ndarray | float:
    return 1.0 if place.row_factors is None else place.row_factors
