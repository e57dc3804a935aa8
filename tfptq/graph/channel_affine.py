"""Calls that multiply and shift each channel by constants: ``y[..., c] = scale[c] * x[..., c] + shift[c]``.

* ``BatchNormalization`` in inference: ``scale = gamma / sqrt(variance + epsilon)``, ``shift = beta - mean * scale``.
* ``Rescaling``: ``scale`` and ``offset`` as they are.
* ``Normalization``: ``scale = 1 / max(sqrt(variance), epsilon)``, ``shift = -mean * scale``, or its inverse.
* ``keras.ops`` add, subtract, multiply, divide and negative with one constant operand.

Coefficients are float64, so that a fold rounds once only.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras.src.ops import numpy as operations  # The operation classes behind keras.ops.

from tfptq.graph.flat_graph import Call, Unit, Value


@dataclass(frozen=True, eq=False)
class ChannelAffine:
    """A constant affine map of each channel.

    Attributes:
        source: the value that it is applied to.
        axis: channel axis, counted from 0; None when all channels have one scale and shift.
        scale: float64 ``[C]`` or ``[]``.
        shift: float64 ``[C]`` or ``[]``.
    """

    source: Value
    axis: int | None
    scale: np.ndarray
    shift: np.ndarray


def channel_affine(call: Call) -> ChannelAffine | None:
    """The constant affine map that a call computes; None for another call, or one that changes the element type."""
    reader = _READERS.get(call.unit.kind)
    if reader is None or len(call.inputs) != 1 or len(call.outputs) != 1:
        return None
    source = call.inputs[0]
    if source.dtype != call.output.dtype or source.shape != call.output.shape:
        return None
    found = reader(call)
    if found is None:
        return None
    axis, scale, shift = found
    scale, shift = np.broadcast_arrays(np.asarray(scale, np.float64), np.asarray(shift, np.float64))
    if scale.ndim == 0:
        return ChannelAffine(source, None, scale, shift)
    return ChannelAffine(source, axis % len(source.shape), scale, shift)


def _batch_normalization(call: Call):
    config, weights = call.unit.config, dict(call.unit.weights)
    with np.errstate(invalid="ignore"):  # NaN where the layer gives NaN, which check_float_equal reports
        scale = 1.0 / np.sqrt(weights["moving_variance"].astype(np.float64) + config["epsilon"])
    scale = scale * weights.get("gamma", 1.0)
    return config["axis"], scale, weights.get("beta", 0.0) - weights["moving_mean"] * scale


def _rescaling(call: Call):
    # The config holds arrays in serialised form, which from_config reads back.
    layer = keras.layers.Rescaling.from_config(dict(call.unit.config))
    scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if max(scale.ndim, offset.ndim) > 1 or keras.config.image_data_format() == "channels_first":
        return None
    return _over_channels(call.inputs[0], scale, offset)


def _normalization(call: Call):
    unit, rank = call.unit, len(call.inputs[0].shape)
    axes = tuple(axis % rank for axis in np.atleast_1d(unit.config["axis"] if unit.config["axis"] is not None else ()))
    if len(axes) > 1:
        return None
    mean, variance = (_statistic(unit, name) for name in ("mean", "variance"))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    axis = axes[0] if axes else -1
    if unit.config["invert"]:
        return axis, deviation, mean
    return axis, 1.0 / deviation, -mean / deviation


def _statistic(unit: Unit, name: str) -> np.ndarray:
    weight = unit.weight(name)
    return np.asarray(unit.config[name] if weight is None else weight, np.float64)


def _over_channels(source: Value, scale: np.ndarray, shift: np.ndarray):
    """Constants that vary along the last axis alone, or not at all; None for others.

    ``[C, 1]`` is none of them: broadcasting lays it along the axis before the last.
    """
    channels = source.shape[-1]
    for constant in (scale, shift):
        if constant.size != 1 and not constant.shape[-1] == channels == constant.size:
            return None
    scale, shift = (constant.reshape(-1) if constant.size > 1 else constant.reshape(()) for constant in (scale, shift))
    return -1, scale, shift


def _arithmetic(call: Call):
    arguments = (*call.args, *call.kwargs.values())
    if len(arguments) != 2:
        return None
    first_is_constant = not isinstance(arguments[0], Value)
    constant = arguments[0] if first_is_constant else arguments[1]
    if isinstance(constant, Value) or not isinstance(constant, (int, float, np.ndarray, np.generic)):
        return None
    constant, kind = np.asarray(constant, np.float64), call.unit.kind
    one, zero = np.ones(()), np.zeros(())
    if kind is operations.Add:
        return _over_channels(call.inputs[0], one, constant)
    if kind is operations.Subtract:
        scale, shift = (-one, constant) if first_is_constant else (one, -constant)
        return _over_channels(call.inputs[0], np.asarray(scale), np.asarray(shift))
    if kind is operations.Multiply:
        return _over_channels(call.inputs[0], constant, zero)
    if first_is_constant or not np.all(constant):  # c / x is not affine, and x / 0 not finite.
        return None
    return _over_channels(call.inputs[0], np.asarray(1.0 / constant), zero)


def _negative(call: Call):
    return -1, -1.0, 0.0


_READERS = {
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Normalization: _normalization,
    operations.Add: _arithmetic,
    operations.Subtract: _arithmetic,
    operations.Multiply: _arithmetic,
    operations.Divide: _arithmetic,
    operations.TrueDivide: _arithmetic,
    operations.Negative: _negative,
}
