"""Run operators of a float ``.tflite`` as TensorFlow operations, so that gradients flow through them.

Block-wise reconstruction and fine-tuning learn on what the file computes, not on a second description of the network.
Operators with one output that ordinary networks have are known here; ``can_run`` tells.
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
    "DIV": tf.divide,
    "SQUARED_DIFFERENCE": tf.math.squared_difference,
    "POW": tf.pow,
    "ABS": tf.abs,
    "NEG": tf.negative,
    "EXP": tf.exp,
    "SQRT": tf.sqrt,
    "RSQRT": tf.math.rsqrt,
    "SQUARE": tf.square,
    "ELU": tf.nn.elu,
    "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6,
    "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
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


def _transposed_convolution(operator, shape, kernel, x, bias=None):
    options = operator.builtinOptions
    taps = tf.transpose(kernel, (1, 2, 0, 3))  # [O, kh, kw, I] -> [kh, kw, O, I]
    size = tf.concat([tf.shape(x)[:1], shape[1:]], axis=0)  # the file may name another batch size
    return _with_bias(tf.nn.conv2d_transpose(x, taps, size, _strides(options), _PADDING[options.padding]), bias)


def _batch_matmul(operator, left, right):
    return tf.matmul(left, right, operator.builtinOptions.adjX, operator.builtinOptions.adjY)


def _fake_quantization(operator, x):
    options = operator.builtinOptions
    return tf.quantization.fake_quant_with_min_max_args(x, options.min, options.max, options.numBits)


def _pool(function):
    def run(operator, x):
        options = operator.builtinOptions
        size = [1, options.filterHeight, options.filterWidth, 1]
        return function(x, size, _strides(options), _PADDING[options.padding])

    return run


def _reduction(function):
    def run(operator, x, axes):
        return function(x, axes, keepdims=operator.builtinOptions.keepDims)

    return run


def _plain(function):
    """A function of the inputs alone."""

    def run(operator, *inputs):
        del operator
        return function(*inputs)

    return run


def _resize(function, method):
    """Resizing as ``tf.image`` does it, or with the corners of both images aligned."""

    def run(operator, x, size):
        options = operator.builtinOptions
        if options.alignCorners or not options.halfPixelCenters:
            return function(x, size, align_corners=options.alignCorners)
        return tf.image.resize(x, size, method)

    return run


def _softmax(operator, x):
    return tf.nn.softmax(operator.builtinOptions.beta * x)


def _gelu(operator, x):
    return tf.nn.gelu(x, approximate=operator.builtinOptions.approximate)


def _expand_dims(operator, x, axis):
    del operator
    return tf.expand_dims(x, tf.reshape(axis, []))  # the axis is a number or a list of one


def _squeeze(operator, x):
    return tf.squeeze(x, operator.builtinOptions.squeezeDims)


def _strided_slice(operator, x, begin, end, strides):
    options = operator.builtinOptions
    return tf.strided_slice(
        x,
        begin,
        end,
        strides,
        options.beginMask,
        options.endMask,
        options.ellipsisMask,
        options.newAxisMask,
        options.shrinkAxisMask,
    )


def _gather(operator, x, indices):
    return tf.gather(x, indices, axis=operator.builtinOptions.axis, batch_dims=operator.builtinOptions.batchDims)


def _pack(operator, *inputs):
    return tf.stack(inputs, operator.builtinOptions.axis)


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
    "TRANSPOSE_CONV": _transposed_convolution,
    "BATCH_MATMUL": _batch_matmul,
    "MEAN": _reduction(tf.reduce_mean),
    "SUM": _reduction(tf.reduce_sum),
    "REDUCE_MAX": _reduction(tf.reduce_max),
    "REDUCE_PROD": _reduction(tf.reduce_prod),
    "RESHAPE": _plain(tf.reshape),
    "TRANSPOSE": _plain(tf.transpose),
    "EXPAND_DIMS": _expand_dims,
    "SQUEEZE": _squeeze,
    "TILE": _plain(tf.tile),
    "PAD": _plain(tf.pad),
    "SPACE_TO_BATCH_ND": _plain(tf.compat.v1.space_to_batch_nd),
    "BATCH_TO_SPACE_ND": _plain(tf.compat.v1.batch_to_space_nd),
    "SHAPE": _plain(tf.shape),
    "GATHER": _gather,
    "PACK": _pack,
    "STRIDED_SLICE": _strided_slice,
    "RESIZE_BILINEAR": _resize(tf.compat.v1.image.resize_bilinear, "bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize(tf.compat.v1.image.resize_nearest_neighbor, "nearest"),
    "SOFTMAX": _softmax,
    "GELU": _gelu,
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
