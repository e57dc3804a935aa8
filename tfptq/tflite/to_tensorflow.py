"""Run operators of a float ``.tflite`` as TensorFlow operations, so that gradients flow through them.

Block-wise reconstruction learns on what the file computes, not on a second description of the network. Only the
operators that networks have inside a residual block are known here; ``can_run`` tells.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.model import TFLiteModel

_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}
_FUSED = {
    schema.ActivationFunctionType.NONE: tf.identity,
    schema.ActivationFunctionType.RELU: tf.nn.relu,
    schema.ActivationFunctionType.RELU6: tf.nn.relu6,
    schema.ActivationFunctionType.RELU_N1_TO_1: lambda x: tf.clip_by_value(x, -1.0, 1.0),
    schema.ActivationFunctionType.TANH: tf.tanh,
}
_ELEMENTWISE = {
    "ADD": tf.add,
    "SUB": tf.subtract,
    "MUL": tf.multiply,
    "MAXIMUM": tf.maximum,
    "MINIMUM": tf.minimum,
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "LOGISTIC": tf.sigmoid,
    "TANH": tf.tanh,
    "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
}


def can_run(model: TFLiteModel, operator) -> bool:
    """Whether ``run_operator`` knows an operator."""
    return model.operator_name(operator) in _ELEMENTWISE or model.operator_name(operator) in _OPERATORS


def run_operator(model: TFLiteModel, operator, values: Mapping[int, tf.Tensor]) -> tf.Tensor:
    """Result of an operator with one output.

    Args:
        model: float model.
        operator: one of its operators.
        values: tensor index -> activation, or a tensor that stands for a constant (a kernel that is learned);
            constants that are not in it are read from the model.
    """
    inputs = [values[index] if index in values else _constant(model, index) for index in operator.inputs]
    name = model.operator_name(operator)
    result = _ELEMENTWISE[name](*inputs) if name in _ELEMENTWISE else _OPERATORS[name](operator, *inputs)
    return _FUSED[getattr(operator.builtinOptions, "fusedActivationFunction", 0)](result)


def _constant(model: TFLiteModel, index: int) -> tf.Tensor | None:
    return None if index < 0 else tf.constant(model.constant(index))


def _strides(options) -> list[int]:
    return [1, options.strideH, options.strideW, 1]


def _with_bias(result: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    return result if bias is None else result + bias


def _convolution(operator, x, kernel, bias=None):
    options = operator.builtinOptions
    result = tf.nn.conv2d(
        x,
        tf.transpose(kernel, (1, 2, 3, 0)),  # [O, kh, kw, I] -> [kh, kw, I, O]
        _strides(options),
        _PADDING[options.padding],
        dilations=[1, options.dilationHFactor, options.dilationWFactor, 1],
    )
    return _with_bias(result, bias)


def _depthwise_convolution(operator, x, kernel, bias=None):
    options = operator.builtinOptions
    channels = x.shape[3]
    taps = tf.reshape(kernel[0], [*kernel.shape[1:3], channels, -1])  # [kh, kw, C, multiplier]
    result = tf.nn.depthwise_conv2d(
        x,
        taps,
        _strides(options),
        _PADDING[options.padding],
        dilations=[options.dilationHFactor, options.dilationWFactor],
    )
    return _with_bias(result, bias)


def _fully_connected(operator, x, kernel, bias=None):
    flat = tf.reshape(x, [-1, kernel.shape[1]])
    result = _with_bias(tf.matmul(flat, kernel, transpose_b=True), bias)
    if operator.builtinOptions.keepNumDims:
        return tf.reshape(result, tf.concat([tf.shape(x)[:-1], tf.shape(kernel)[:1]], axis=0))
    return result


def _fake_quantization(operator, x):
    options = operator.builtinOptions
    return tf.quantization.fake_quant_with_min_max_args(x, options.min, options.max, options.numBits)


def _pool(function):
    def run(operator, x):
        options = operator.builtinOptions
        size = [1, options.filterHeight, options.filterWidth, 1]
        return function(x, size, _strides(options), _PADDING[options.padding])

    return run


def _mean(operator, x, axes):
    return tf.reduce_mean(x, axes, keepdims=operator.builtinOptions.keepDims)


def _reshape(operator, x, shape):
    del operator
    return tf.reshape(x, shape)


def _pad(operator, x, paddings):
    del operator
    return tf.pad(x, paddings)


def _concatenation(operator, *inputs):
    return tf.concat(inputs, operator.builtinOptions.axis)


def _leaky_relu(operator, x):
    return tf.nn.leaky_relu(x, operator.builtinOptions.alpha)


def _prelu(operator, x, slope):
    del operator
    return tf.nn.relu(x) - slope * tf.nn.relu(-x)


_OPERATORS = {
    "CONV_2D": _convolution,
    "FAKE_QUANT": _fake_quantization,
    "DEPTHWISE_CONV_2D": _depthwise_convolution,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool(tf.nn.avg_pool2d),
    "MAX_POOL_2D": _pool(tf.nn.max_pool2d),
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "PAD": _pad,
    "CONCATENATION": _concatenation,
    "LEAKY_RELU": _leaky_relu,
    "PRELU": _prelu,
}


def as_kernel(values: tf.Tensor, view) -> tf.Tensor:
    """A canonical view ``[O, I, T]`` as a kernel in the layout of the file; differentiable.

    Args:
        values: float32 ``[O, I, T]``.
        view: ``WeightView`` of the kernel.
    """
    order = view.output_axes + view.input_axes + view.tap_axes
    split = tf.reshape(values, [view.shape[axis] for axis in order])
    return tf.transpose(split, np.argsort(order).tolist())
