"""Operators that read another kernel than the metadata describes, or read it in another way."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import VIEWS, FileBuilder, random_weight
from hostile_files import KINDS, conv, dense, describe, operator, refused, tensor, transposed

from tfptq.tflite.checks import VerificationError
from tfptq.tflite.layouts import FULLY_CONNECTED_INT4, IM2COL_INT4, INLINE, INT4
from tfptq.tflite.verify import verify

# The axes and the shape are those of the operator.

AXES = {
    "transposed dense": (dense, {"output_axis": 1, "input_axes": (0,)}),
    "transposed inline": (lambda: dense(INLINE, block=(4, 4)), {"output_axis": 1, "input_axes": (0,)}),
    "dense without inputs": (lambda: dense(block=(4, 4)), {"input_axes": (), "block_shape": (4, 1)}),
    "convolution without inputs": (
        lambda: conv((4, 3, 3, 2), kind="float", block=(4, 2)),
        {"input_axes": (), "block_shape": (4, 1)},
    ),
    "convolution with taps as inputs": (
        lambda: conv((4, 3, 3, 2), kind="float", block=(4, 2)),
        {"input_axes": (1, 2, 3), "block_shape": (4, 18)},
    ),
    "convolution with height as inputs": (lambda: conv((4, 2, 3, 2)), {"input_axes": (1,)}),
    "transposed convolution": (lambda: conv((2, 3, 3, 2)), {"output_axis": 3, "input_axes": (0,)}),
    "depthwise with taps as inputs": (
        lambda: conv((1, 3, 3, 4), "DEPTHWISE_CONV_2D", kind="float", block=(4, 1)),
        {"input_axes": (1,), "block_shape": (4, 3)},
    ),
}


@pytest.mark.parametrize("case", AXES)
def test_axes_of_another_operator_are_refused(case):
    make, changes = AXES[case]
    builder = make()
    assert verify(builder.finish())
    describe(builder, **changes)
    refused(builder, "does not read a kernel of shape")


def test_a_depthwise_kernel_needs_no_input_axis():
    builder = conv((1, 3, 3, 4), "DEPTHWISE_CONV_2D")
    describe(builder, input_axes=())
    assert verify(builder.finish())


@pytest.mark.parametrize(
    ("layout", "shape", "taps", "message"),
    [
        (FULLY_CONNECTED_INT4, (4, 1, 1, 8), False, None),
        (FULLY_CONNECTED_INT4, (4, 2, 2, 2), True, "does not lie in the layout fully_connected_int4"),
        (IM2COL_INT4, (4, 2, 2, 2), True, None),
        (IM2COL_INT4, (4, 1, 1, 8), False, "does not lie in the layout im2col_int4"),
    ],
)
def test_convolutions_in_the_form_of_dense_layers(layout, shape, taps, message):
    view = VIEWS["CONV_2D"](shape)
    weight = random_weight(np.random.default_rng(0), view, "float", bits=4)
    builder = FileBuilder((1, 8)).layer("FULLY_CONNECTED", weight, view, layout=layout)
    if message is None:
        assert verify(builder.finish())
    else:
        refused(builder, message)


def test_a_dense_kernel_in_the_shape_of_its_transpose_is_refused():
    builder = dense(FULLY_CONNECTED_INT4, shape=(4, 8), block=(4, 8))
    stored = tensor(builder, "layer_0/kernel")
    stored.shape, stored.quantization.scale, stored.quantization.zeroPoint = [8, 4], stored.quantization.scale[:1], [0]
    with pytest.raises(VerificationError, match=r"has the shape \(8, 4\)"):
        verify(builder.finish())


def test_a_dense_layout_under_a_convolution_is_refused():
    builder = conv((4, 1, 1, 2), kind="float", block=(4, 2), layout=INT4, bits=4)
    describe(builder, layout=FULLY_CONNECTED_INT4)
    refused(builder, r"CONV_2D does not read the layout|has the shape \(4, 1, 1, 2\)")


def test_codes_wider_than_their_type_are_refused():
    builder = dense(INT4)
    describe(builder, bits=8)
    refused(builder, "codes of 8 bits do not fit INT4")


# Biases and options.


def set_bias(**fields):
    def change(builder):
        for name, value in fields.items():
            setattr(tensor(builder, "layer_0/bias"), name, value)

    return change


def shorten_bias(builder):
    bias = tensor(builder, "layer_0/bias")
    bias.shape, bias.quantization = [1], None
    bias.buffer = len(builder.model.buffers)
    builder.model.buffers.append(schema.BufferT(data=np.zeros(4, np.uint8)))


def set_option(kind, name, value):
    return lambda builder: setattr(operator(builder, kind).builtinOptions, name, value)


def set_grid(name, field, value):
    def change(builder):
        setattr(tensor(builder, name).quantization, field, value)
        if value is None:
            tensor(builder, name).quantization.zeroPoint = None

    return change


def drop_options(builder):
    operator(builder, "CONV_2D").builtinOptions, operator(builder, "CONV_2D").builtinOptionsType = None, 0


OPERATORS = {
    r"the bias is FLOAT32 \(4,\)": set_bias(type=KINDS.FLOAT32),
    r"the bias is INT32 \(4,\), expected a constant": set_bias(buffer=0),
    r"the bias is INT32 \(1,\), expected a constant of 4": shorten_bias,
    "CONV_2D that reads it has no options": drop_options,
    r"dilations \(1048576, 1\)": set_option("CONV_2D", "dilationHFactor", 2**20),
    r"dilations \(1, -1\)": set_option("CONV_2D", "dilationWFactor", -1),
    r"strides \(0, 1\)": set_option("CONV_2D", "strideH", 0),
    r"strides \(1, 2147483647\)": set_option("CONV_2D", "strideW", 2**31 - 1),
    "padding 2": set_option("CONV_2D", "padding", 2),
    "fused function 77": set_option("CONV_2D", "fusedActivationFunction", 77),
    "makes FLOAT32 of activations of INT8": lambda builder: setattr(tensor(builder, "layer_0/output"), "type", 0),
    "its scale is nan": set_grid("input", "scale", np.float32([np.nan])),
    "its scale is 0.0": set_grid("layer_0/output", "scale", np.float32([0])),
    "its scale is -inf": set_grid("input", "scale", np.float32([-np.inf])),
    "0 scales in an activation": set_grid("input", "scale", None),
    "its zero point is 128": set_grid("layer_0/output", "zeroPoint", np.int64([128])),
}


@pytest.mark.parametrize("message", OPERATORS)
def test_operators_that_compute_nothing_sensible_are_refused(message):
    builder = conv()
    assert verify(builder.finish())
    OPERATORS[message](builder)
    refused(builder, message)


@pytest.mark.parametrize("size", [(1, 2**30, 8, 4), (1, -8, 8, 4), (1, 8, 0, 4), (0, 8, 8, 4), (-(2**31), 8, 8, 4)])
def test_impossible_outputs_of_transposed_convolutions_are_refused(size):
    builder = transposed()
    assert verify(builder.finish())
    tensor(builder, "layer_0/size").buffer = len(builder.model.buffers)
    builder.model.buffers.append(schema.BufferT(data=np.frombuffer(np.int32(size).tobytes(), np.uint8)))
    refused(builder, "has an output of shape")
