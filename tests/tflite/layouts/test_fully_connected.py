import math
import re

import keras
import numpy as np
import pytest
from keras import layers
from layout_files import EVERYWHERE, PRODUCTS, STEP, WINDOWS, emitted, output, samples
from plain_config import plain_config
from stock_runtimes import in_one_partition, run

import tfptq
from tfptq.config import PerBlock, PerChannel, PerTensor, override
from tfptq.core.windows import Window
from tfptq.npu import compare_with_stock
from tfptq.tflite.layouts import (
    FULLY_CONNECTED_INT2,
    FULLY_CONNECTED_INT4,
    IM2COL_INT2,
    IM2COL_INT4,
    INT4,
    INT8,
    LayoutRequest,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

KINDS = [
    *((f"product, {name}", layout) for name in PRODUCTS for layout in (FULLY_CONNECTED_INT4, FULLY_CONNECTED_INT2)),
    *((f"window, {name}", layout) for name in WINDOWS for layout in (IM2COL_INT4, IM2COL_INT2)),
]


def check(kind, layout, config):
    """A file in a layout computes what that of int8 does, and takes as many bytes as its bits."""
    (file, _, kernel), (int8, _, _) = emitted(kind, layout, config), emitted(kind, INT8, config)
    inputs = samples(kind)
    (row,) = tfptq.inspect(file).weights
    assert row.bytes == math.ceil(kernel.weight.codes.size * layout.width / 8)
    assert (row.operator, row.layout) == ("FULLY_CONNECTED", layout.name)
    (same,) = tfptq.inspect(int8).weights
    assert row.shape == same.shape  # of the kernel as the layer has it
    assert tfptq.verify(file).checks
    for resolver, runtime in EVERYWHERE:
        difference = np.abs(output(file, inputs, resolver, runtime) - output(int8, inputs, resolver, runtime))
        # The reference kernels of convolutions round twice, those of FULLY_CONNECTED once.
        assert difference.max() <= (1.01 * STEP if resolver == "REF" else 0.0), (resolver, runtime)
    shape = inputs["x"].shape
    assert in_one_partition(file, shape) or not in_one_partition(int8, shape)
    assert all(comparison.equal for comparison in compare_with_stock(file, inputs["x"]))


@pytest.mark.parametrize(("kind", "layout"), KINDS, ids=str)
def test_it_equals_int8(kind, layout):
    check(kind, layout, plain_config(PerChannel(), weight_bits=layout.width))


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("product, pointwise", FULLY_CONNECTED_INT4),
        ("product, pointwise", FULLY_CONNECTED_INT2),
        ("window, same", IM2COL_INT4),
        ("window, same", IM2COL_INT2),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "config",
    [
        plain_config(PerTensor(), weight_bits=2),
        plain_config(PerTensor(), "shift", 2),
        plain_config(PerBlock(2, 64), "integer", 2),
    ],
    ids=["tensor", "shift scaler", "one column"],
)
def test_scales_of_any_kind_that_rows_share(kind, layout, config):
    check(kind, layout, config)


POINTWISE = LayoutRequest("CONV_2D", (8, 16, 1), (1, 16), "float", 2, input_sizes=(-1, 9, 9, 16))
GATHERED = LayoutRequest("CONV_2D", (8, 16, 9), (1, 16), "float", 2, window=Window((3, 3)), input_sizes=(-1, 9, 9, 16))


def but(request, **changes):
    return LayoutRequest(**{**vars(request), **changes})


@pytest.mark.parametrize(
    ("layout", "request_", "message"),
    [
        (FULLY_CONNECTED_INT4, POINTWISE, None),
        (FULLY_CONNECTED_INT2, POINTWISE, None),
        (FULLY_CONNECTED_INT4, but(POINTWISE, input_sizes=(-1, -1, -1, 16)), None),
        (FULLY_CONNECTED_INT4, but(POINTWISE, operator="FULLY_CONNECTED", input_sizes=(-1, 16)), None),
        (FULLY_CONNECTED_INT4, but(POINTWISE, weight_bits=5), "5 bits"),
        (FULLY_CONNECTED_INT2, but(POINTWISE, weight_bits=3), "3 bits"),
        (FULLY_CONNECTED_INT2, but(POINTWISE, activation_bits=16), "INT2 kernels read 8-bit activations only"),
        (FULLY_CONNECTED_INT4, but(POINTWISE, view_shape=(8, 15, 1)), "15 products, .* a multiple of 2 only"),
        (FULLY_CONNECTED_INT2, but(POINTWISE, view_shape=(8, 14, 1)), "14 products, .* a multiple of 4 only"),
        (FULLY_CONNECTED_INT4, but(POINTWISE, view_shape=(1, 16, 1)), "one output"),
        (FULLY_CONNECTED_INT4, but(POINTWISE, operator="DEPTHWISE_CONV_2D"), "DEPTHWISE_CONV_2D is no FULLY_CONN"),
        (FULLY_CONNECTED_INT4, but(POINTWISE, window=Window(groups=2)), "a grouped CONV_2D is no FULLY_CONNECTED"),
        (
            FULLY_CONNECTED_INT4,
            but(POINTWISE, window=Window(strides=(2, 2)), input_sizes=(-1, -1, -1, 16)),
            "height and width of its input are open",
        ),
        (FULLY_CONNECTED_INT4, GATHERED, "9 taps, which the layout im2col_int4 gathers"),
        (IM2COL_INT4, GATHERED, None),
        (IM2COL_INT2, GATHERED, None),
        (IM2COL_INT4, POINTWISE, "one tap, which the layout fully_connected_int4 takes"),
        (IM2COL_INT4, but(GATHERED, input_sizes=(-1, -1, 9, 16)), "height and width of its input are open"),
        (IM2COL_INT4, but(GATHERED, view_shape=(8, 3, 9)), "27 products"),
        (IM2COL_INT4, but(GATHERED, operator="TRANSPOSE_CONV"), "TRANSPOSE_CONV is no CONV_2D"),
        (IM2COL_INT4, but(GATHERED, window=Window((3, 3), groups=2)), "a grouped CONV_2D is no CONV_2D"),
        (INT4, but(POINTWISE, operator="FULLY_CONNECTED", view_shape=(1, 16, 1)), "one output"),
    ],
)
def test_obstacles(layout, request_, message):
    problem = layout.obstacle(request_)
    if message is None:
        assert problem is None
    else:
        assert problem is not None and re.search(message, problem), problem


def separable(filters, strides, name):
    return [
        layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False, name=f"{name}_depthwise"),
        layers.BatchNormalization(),
        layers.ReLU(6.0),
        layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_pointwise"),
        layers.BatchNormalization(),
        layers.ReLU(6.0),
    ]


def test_a_network_stays_in_one_partition():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), name="x"),
            layers.Conv2D(16, 3, strides=2, padding="same", name="first"),
            layers.ReLU(6.0),
            *separable(24, 1, "a"),
            *separable(32, 2, "b"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="wide"),
            layers.Conv2D(16, 1, strides=2, activation="relu", name="skip"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="classes"),
        ]
    )
    x = np.random.default_rng(0).normal(0, 1, (32, 32, 32, 3)).astype(np.float32)
    config = plain_config(PerChannel(), weight_bits=4, edge_bits=None, layout="int8")
    names = {"wide": "im2col_int4"}
    names |= dict.fromkeys(("a_pointwise", "b_pointwise", "skip", "classes"), "fully_connected_int4")
    packed = config.replace(overrides=[override(name, layout=layout) for name, layout in names.items()])
    int8 = tfptq.quantize_keras_model(model, x, config, progress=False).tflite
    file = tfptq.quantize_keras_model(model, x, packed, progress=False).tflite
    assert tfptq.verify(file).checks
    assert {row.layer: row.layout for row in tfptq.inspect(file).weights if row.layout != "int8"} == names
    for resolver, runtime in EVERYWHERE:
        if resolver != "REF":
            (expected,), (found,) = (run(each, {"x": x}, resolver, runtime).values() for each in (int8, file))
            np.testing.assert_array_equal(expected, found)
            assert len(np.unique(found)) > 50
    assert in_one_partition(int8, x.shape) and in_one_partition(file, x.shape)
    assert in_one_partition(file, x[:1].shape)
