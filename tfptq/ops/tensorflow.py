"""Run operators of a float ``.tflite`` as TensorFlow operations, so that gradients flow through them.

The rows of ``tfptq.ops.table`` name their twins: functions of TensorFlow, or of this module, which get the operator
and its inputs.
"""
# ruff: noqa: D103 - the twins are named after what they do

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tfptq.ops.operator_spec import ModelView, Node, OperatorSpec
from tfptq.ops.table import FUSED_FUNCTIONS, spec_of

#: From an operator and its inputs to its one result.
Twin = Callable[..., tf.Tensor]
_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}


def can_run(model: ModelView, operator: Node) -> bool:
    """Whether ``run_operator`` knows an operator."""
    return spec_of(model.operator_name(operator)).twin is not None


def run_operator(model: ModelView, operator: Node, values: Mapping[int, tf.Tensor]) -> tf.Tensor:
    """Result of an operator with one output.

    Args:
        model: float model.
        operator: one of its operators.
        values: tensor index -> activation, or a tensor that stands for a constant (a kernel that is learned);
            constants that are not in it are read from the model.
    """
    inputs = [values[index] if index in values else _constant(model, index) for index in operator.inputs]
    result = twin_of(spec_of(model.operator_name(operator)))(operator, *inputs)
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", schema.ActivationFunctionType.NONE)
    return result if fused == schema.ActivationFunctionType.NONE else twin_of(FUSED_FUNCTIONS[fused])(operator, result)


def twin_of(spec: OperatorSpec) -> Twin:
    """The twin of an operator.

    Raises:
        ValueError: the operator has none.
    """
    if spec.twin is None:
        raise ValueError(f"{spec.name} has no twin in TensorFlow; name one in tfptq/ops/table.py")
    if not spec.twin.startswith("tf."):
        return globals()[spec.twin]
    function = attrgetter(spec.twin.removeprefix("tf."))(tf)
    return lambda operator, *inputs: function(*inputs)


def _constant(model: ModelView, index: int) -> tf.Tensor | None:
    return None if index < 0 else tf.constant(model.constant(index))


def _strides(options: Any) -> list[int]:
    return [1, options.strideH, options.strideW, 1]


def _with_bias(result: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    return result if bias is None else result + bias


def convolution(operator: Node, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    options = operator.builtinOptions
    result = tf.nn.conv2d(
        x,
        tf.transpose(kernel, (1, 2, 3, 0)),  # [O, kh, kw, I] -> [kh, kw, I, O]
        _strides(options),
        _PADDING[options.padding],
        dilations=[1, options.dilationHFactor, options.dilationWFactor, 1],
    )
    return _with_bias(result, bias)


def depthwise(operator: Node, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
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


def fully_connected(operator: Node, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    flat = tf.reshape(x, [-1, kernel.shape[1]])
    result = _with_bias(tf.matmul(flat, kernel, transpose_b=True), bias)
    if operator.builtinOptions.keepNumDims:
        return tf.reshape(result, tf.concat([tf.shape(x)[:-1], tf.shape(kernel)[:1]], axis=0))
    return result


def transposed(
    operator: Node, shape: tf.Tensor, kernel: tf.Tensor, x: tf.Tensor, bias: tf.Tensor | None = None
) -> tf.Tensor:
    options = operator.builtinOptions
    taps = tf.transpose(kernel, (1, 2, 0, 3))  # [O, kh, kw, I] -> [kh, kw, O, I]
    size = tf.concat([tf.shape(x)[:1], shape[1:]], axis=0)  # the file may name another batch size
    return _with_bias(tf.nn.conv2d_transpose(x, taps, size, _strides(options), _PADDING[options.padding]), bias)


def batch_matmul(operator: Node, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    return tf.matmul(left, right, operator.builtinOptions.adjX, operator.builtinOptions.adjY)


def fake_quantization(operator: Node, x: tf.Tensor) -> tf.Tensor:
    options = operator.builtinOptions
    return tf.quantization.fake_quant_with_min_max_args(x, options.min, options.max, options.numBits)


def _pool(function: Callable[..., tf.Tensor]) -> Twin:
    def run(operator: Node, x: tf.Tensor) -> tf.Tensor:
        options = operator.builtinOptions
        size = [1, options.filterHeight, options.filterWidth, 1]
        return function(x, size, _strides(options), _PADDING[options.padding])

    return run


def _reduction(function: Callable[..., tf.Tensor]) -> Twin:
    def run(operator: Node, x: tf.Tensor, axes: tf.Tensor) -> tf.Tensor:
        return function(x, axes, keepdims=operator.builtinOptions.keepDims)

    return run


def _resize(function: Callable[..., tf.Tensor], method: str) -> Twin:
    """Resizing as ``tf.image`` does it, or with the corners of both images aligned."""

    def run(operator: Node, x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        options = operator.builtinOptions
        if options.alignCorners or not options.halfPixelCenters:
            return function(x, size, align_corners=options.alignCorners)
        return tf.image.resize(x, size, method)

    return run


average_pool, max_pool = _pool(tf.nn.avg_pool2d), _pool(tf.nn.max_pool2d)
mean, total = _reduction(tf.reduce_mean), _reduction(tf.reduce_sum)
largest, product = _reduction(tf.reduce_max), _reduction(tf.reduce_prod)
resize_bilinear = _resize(tf.compat.v1.image.resize_bilinear, "bilinear")
resize_nearest = _resize(tf.compat.v1.image.resize_nearest_neighbor, "nearest")


def softmax(operator: Node, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(operator.builtinOptions.beta * x)


def gelu(operator: Node, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=operator.builtinOptions.approximate)


def expand_dims(operator: Node, x: tf.Tensor, axis: tf.Tensor) -> tf.Tensor:
    del operator
    return tf.expand_dims(x, tf.reshape(axis, []))  # the axis is a number or a list of one


def squeeze(operator: Node, x: tf.Tensor) -> tf.Tensor:
    return tf.squeeze(x, operator.builtinOptions.squeezeDims)


def strided_slice(operator: Node, x: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, strides: tf.Tensor) -> tf.Tensor:
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


def gather(operator: Node, x: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    return tf.gather(x, indices, axis=operator.builtinOptions.axis, batch_dims=operator.builtinOptions.batchDims)


def pack(operator: Node, *inputs: tf.Tensor) -> tf.Tensor:
    return tf.stack(inputs, operator.builtinOptions.axis)


def concatenation(operator: Node, *inputs: tf.Tensor) -> tf.Tensor:
    return tf.concat(inputs, operator.builtinOptions.axis)


def leaky_relu(operator: Node, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(x, operator.builtinOptions.alpha)


def prelu(operator: Node, x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    del operator
    return tf.nn.relu(x) - slope * tf.nn.relu(-x)


def relu_n1_to_1(operator: Node, x: tf.Tensor) -> tf.Tensor:
    del operator
    return tf.clip_by_value(x, -1.0, 1.0)


def hard_swish(operator: Node, x: tf.Tensor) -> tf.Tensor:
    del operator
    return x * tf.nn.relu6(x + 3.0) / 6.0
