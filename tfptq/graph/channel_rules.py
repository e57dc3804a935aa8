"""What each kind of layer or operation of Keras does with the channels (the last axis) of its input.

The changes that channels may be subjected to, and what it means to follow one, are in ``core.channel_graph``.
"""

import keras
import numpy as np
from keras import layers
from keras.src.ops import nn as nn_operations  # The operation classes behind keras.ops.
from keras.src.ops import numpy as array_operations

from tfptq.core.channel_graph import Change, Role, repeats_of_channels
from tfptq.graph.flat_graph import Call, Unit, Value
from tfptq.graph.fold_batch_norm import CONVOLUTIONS, DEPTHWISE, TRANSPOSED

#: Activation functions that act on every element alone, or treat all channels alike.
_ACTIVATIONS = frozenset(
    {
        *("linear", "relu", "leaky_relu", "relu6", "softmax", "celu", "elu", "selu", "softplus", "softsign"),
        *("squareplus", "soft_shrink", "sparse_plus", "silu", "gelu", "tanh", "tanh_shrink", "sigmoid"),
        *("sparse_sigmoid", "exponential", "hard_sigmoid", "hard_silu", "hard_tanh", "hard_shrink", "mish"),
        *("log_softmax", "log_sigmoid"),
    }
)
#: Those that follow a scale, below their clip level.
_HOMOGENEOUS_ACTIVATIONS = frozenset({"linear", "relu", "leaky_relu", "relu6"})

_PRODUCERS = frozenset({*CONVOLUTIONS, *TRANSPOSED, layers.Dense})
_SPATIAL = frozenset(
    {
        *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
        *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
        *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
        *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
        *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
        *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
        *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, layers.Resizing),
    }
)
_MAXIMA = frozenset(
    {
        *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
        *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
        array_operations.Max,
    }
)
_ACTIVATION_LAYERS = frozenset({layers.ReLU, layers.LeakyReLU, layers.ELU})
_ELEMENTWISE_OPERATIONS = frozenset(
    {
        *(nn_operations.Relu, nn_operations.Relu6, nn_operations.LeakyRelu, nn_operations.Sigmoid, nn_operations.Silu),
        *(nn_operations.HardSigmoid, nn_operations.HardSilu, nn_operations.Elu, nn_operations.Gelu),
        *(nn_operations.Softplus, array_operations.Tanh, array_operations.Exp, array_operations.Square),
        *(array_operations.Sqrt, array_operations.Absolute, array_operations.Abs, array_operations.Negative),
    }
)
_HOMOGENEOUS_OPERATIONS = frozenset(
    {nn_operations.Relu, nn_operations.Relu6, nn_operations.LeakyRelu}
    | {array_operations.Absolute, array_operations.Abs, array_operations.Negative}
)
_REDUCTIONS = frozenset({array_operations.Mean, array_operations.Max})
_LINEAR_SUMS = frozenset({layers.Add, layers.Subtract, layers.Average})
_LINEAR_OPERATION_SUMS = frozenset({array_operations.Add, array_operations.Subtract})
_SUMS = _LINEAR_SUMS | {layers.Maximum, layers.Minimum}
_OPERATION_SUMS = _LINEAR_OPERATION_SUMS | {array_operations.Maximum, array_operations.Minimum}
_OPERATION_PRODUCTS = frozenset({array_operations.Multiply, array_operations.Divide, array_operations.TrueDivide})
_RESHAPES = frozenset(
    {layers.Flatten, layers.Reshape, array_operations.Reshape, array_operations.Squeeze, array_operations.ExpandDims}
)


def role_of(call: Call, change: Change) -> Role:
    """What a change of the input channels meets in ``call``."""
    if change is Change.SCALE:
        return _role_for_scale(call)
    return _role_for_rotation(call) if change is Change.ROTATION else _role_for_permutation(call)


def activation_follows(unit: Unit, change: Change) -> bool:
    """Whether the activation function inside a layer follows a change of the channels; a scale below its clip level."""
    linear = frozenset({"linear"})
    allowed = {Change.SCALE: _HOMOGENEOUS_ACTIVATIONS, Change.ROTATION: linear}.get(change, _ACTIVATIONS)
    return unit.config["activation"] in (None, *allowed)


def _role_for_permutation(call: Call) -> Role:
    kind, unit = call.unit.kind, call.unit
    if len(call.outputs) != 1 or not call.inputs or unit.config.get("data_format") == "channels_first":
        return Role.BARRIER
    if kind in _PRODUCERS:
        return Role.PRODUCER if unit.config.get("groups", 1) == 1 else Role.BARRIER
    if kind in DEPTHWISE:
        plain = unit.config["depth_multiplier"] == 1 and activation_follows(unit, Change.PERMUTATION)
        return Role.DEPTHWISE if plain else Role.BARRIER
    if kind is layers.PReLU or (kind is layers.BatchNormalization and _is_last_axis(call, unit.config["axis"])):
        return Role.PER_CHANNEL
    if kind in _SUMS | {layers.Multiply}:
        same_rank = len({len(value.shape) for value in call.inputs}) == 1
        return Role.MERGE if same_rank else Role.BARRIER
    if kind in _OPERATION_SUMS | _OPERATION_PRODUCTS:
        return Role.MERGE if _constants_are_scalar(call) else Role.BARRIER
    if kind in (layers.Concatenate, array_operations.Concatenate):
        return Role.CONCATENATE
    if kind in _RESHAPES:
        return Role.BARRIER if repeats_of(call) is None else Role.REPEAT
    return Role.ELEMENTWISE if len(call.inputs) == 1 and _is_elementwise(call) else Role.BARRIER


def _role_for_scale(call: Call) -> Role:
    role, kind, unit = _role_for_permutation(call), call.unit.kind, call.unit
    if role is Role.DEPTHWISE:
        return role if activation_follows(unit, Change.SCALE) else Role.BARRIER
    if role is Role.PER_CHANNEL:
        return Role.ELEMENTWISE if kind is layers.PReLU else Role.BARRIER
    if role is Role.MERGE:
        return role if _has_full_terms(call, _SUMS, _OPERATION_SUMS) else Role.BARRIER
    if role is Role.ELEMENTWISE:
        return role if _is_homogeneous(unit) else Role.BARRIER
    return role


def _role_for_rotation(call: Call) -> Role:
    role = _role_for_permutation(call)
    if role is Role.MERGE:
        return role if _has_full_terms(call, _LINEAR_SUMS, _LINEAR_OPERATION_SUMS) else Role.BARRIER
    if role is Role.ELEMENTWISE:
        return role if _is_linear(call.unit) else Role.BARRIER
    return Role.BARRIER if role in (Role.DEPTHWISE, Role.PER_CHANNEL) else role


def _has_full_terms(call: Call, sums: frozenset, operation_sums: frozenset) -> bool:
    """Whether a call is one of some sums, with all channels in every term: what is broadcast does not follow."""
    kind, channels = call.unit.kind, {value.shape[-1] for value in call.inputs}
    return len(channels) == 1 and (kind in sums or (kind in operation_sums and len(call.inputs) == 2))


def clip_level(unit: Unit) -> float | None:
    """The number above which a layer or operation cuts its output off (6 for ReLU6), or None."""
    if unit.kind is layers.ReLU:
        return unit.config["max_value"]
    return 6.0 if unit.kind is nn_operations.Relu6 or unit.config.get("activation") == "relu6" else None


def is_activation(call: Call) -> bool:
    """Whether a call is an activation function; the converter fuses ReLU and ReLU6 into most operators before them."""
    return call.unit.kind in _ACTIVATION_LAYERS | {layers.Activation} | _ELEMENTWISE_OPERATIONS


def repeats_of(call: Call) -> int | None:
    """How often a reshape lays out the channels of its input in the last axis of its output; None if it does not."""
    return repeats_of_channels(call.inputs[0].shape, call.output.shape)


def concatenates_channels(call: Call) -> bool:
    """Whether a concatenation is along the last axis."""
    operation = call.unit.operation
    axis = call.unit.config["axis"] if operation is None else operation.axis
    return _is_last_axis(call, axis)


def _is_last_axis(call: Call, axis: int) -> bool:
    return axis in (-1, len(call.inputs[0].shape) - 1)


def _is_elementwise(call: Call) -> bool:
    kind, unit = call.unit.kind, call.unit
    if kind is layers.Activation:
        return activation_follows(unit, Change.PERMUTATION)
    if kind is layers.Rescaling:
        layer = layers.Rescaling.from_config(dict(unit.config))
        return np.ndim(layer.scale) == np.ndim(layer.offset) == 0
    if kind is layers.Softmax:
        return unit.config["axis"] == -1
    if kind in _REDUCTIONS:
        axes, rank = getattr(unit.operation, "axis", None), len(call.inputs[0].shape)
        return axes is not None and all(axis % rank not in (0, rank - 1) for axis in axes)
    return kind in _SPATIAL | _ACTIVATION_LAYERS | _ELEMENTWISE_OPERATIONS


def _is_homogeneous(unit: Unit) -> bool:
    if unit.kind is layers.Activation:
        return activation_follows(unit, Change.SCALE)
    if unit.kind is layers.ReLU:
        return not unit.config["threshold"]
    if unit.kind is layers.LeakyReLU:
        return True
    if unit.kind is layers.Resizing:
        return not unit.config["pad_to_aspect_ratio"]  # it may pad with any number
    return unit.kind in _SPATIAL | _REDUCTIONS | _HOMOGENEOUS_OPERATIONS


def _is_linear(unit: Unit) -> bool:
    """Whether an elementwise call with one argument is linear."""
    if unit.kind is layers.Activation:
        return activation_follows(unit, Change.ROTATION)
    if unit.kind is layers.Resizing:
        return _is_homogeneous(unit)
    return unit.kind in (_SPATIAL | _REDUCTIONS | {array_operations.Negative}) - _MAXIMA


def _constants_are_scalar(call: Call) -> bool:
    leaves = keras.tree.flatten((call.args, dict(call.kwargs)))
    return all(isinstance(leaf, (Value, int, float)) or np.size(leaf) == 1 for leaf in leaves)
