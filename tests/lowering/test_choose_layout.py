import numpy as np
import pytest
from plain_config import plain_config

from tfptq.config import PerBlock, PerChannel, PerTensor
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.core.windows import Window
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.float_file.layout_requests import layout_requests
from tfptq.lowering.choose_layout import LayoutPlan, plan_layout, settle_layout
from tfptq.tflite.layouts import (
    FULLY_CONNECTED_INT2,
    FULLY_CONNECTED_INT4,
    IM2COL_INT4,
    INLINE,
    INT4,
    INT8,
    Computes,
    LayoutError,
)

INTEGER4 = plain_config(PerBlock(2, 16), "integer", 4)
FLOAT4 = plain_config(PerBlock(2, 32), weight_bits=4)
CHANNEL4 = plain_config(PerChannel(), weight_bits=4)
CONV, DENSE = ("CONV_2D", (8, 64, 9)), ("FULLY_CONNECTED", (8, 64, 1))


class Operators:
    """The operators of a model that read a kernel, each given by its kind."""

    def __init__(self, *kinds):
        self.operators = kinds

    def operator_name(self, operator):
        return operator

    def sizes(self, index):
        return [-1, 9, 9, 64]


def requests(config, kind, shape, *others):
    kernel, kinds = np.zeros(shape, np.float32), (kind, *others)
    view = WeightView(shape, (0,), (1,), (2,))
    uses = tuple(KernelUse(at, 0, 1, 2, view, Window((shape[2], 1))) for at in range(len(kinds)))
    return layout_requests(config, Operators(*kinds), Kernel(KernelId("layer", "kernel"), kernel, uses))


EITHER = (INT4, INT8)


def test_requests_of_uses_that_are_alike_are_one():
    (request,) = requests(CHANNEL4, *CONV, "CONV_2D")
    assert (request.operator, request.view_shape, request.block_shape) == (*CONV, (1, 64))
    assert (request.weight_bits, request.activation_bits, request.scale_kind) == (4, 8, "float")
    assert (request.window, request.input_sizes) == (Window((9, 1)), (-1, 9, 9, 64))
    assert len(requests(CHANNEL4, *CONV, "TRANSPOSE_CONV")) == 2


@pytest.mark.parametrize(
    ("config", "where", "micro", "elsewhere"),
    [
        (CHANNEL4, CONV, EITHER, INT8),
        (CHANNEL4, ("DEPTHWISE_CONV_2D", (8, 1, 9)), EITHER, INT8),
        (CHANNEL4, ("TRANSPOSE_CONV", (8, 64, 9)), (INT8,), INT8),
        (CHANNEL4, DENSE, (INT8,), INT8),
        (CHANNEL4.replace(weight_bits=8), CONV, (INT8,), INT8),
        (CHANNEL4.replace(activation_bits=16), CONV, (INT8,), INT8),
        (FLOAT4, CONV, (INLINE,), INLINE),
        (FLOAT4, DENSE, (INLINE,), INLINE),
        (FLOAT4, ("DEPTHWISE_CONV_2D", (8, 1, 9)), EITHER, INT8),
        (INTEGER4, CONV, EITHER, INT8),
    ],
)
def test_choice(config, where, micro, elsewhere):
    plan = plan_layout("layer", config.replace(target="micro"), requests(config, *where))
    assert plan.candidates == micro
    assert plan.computes is (Computes.FLOAT if micro == (INLINE,) else Computes.INTEGER)
    for target in ("web", "npu", "any"):
        assert plan_layout("layer", config.replace(target=target), requests(config, *where)).candidates == (elsewhere,)
    named = config.replace(layout=elsewhere.name)
    assert plan_layout("layer", named, requests(config, *where)).candidates == (elsewhere,)


@pytest.mark.parametrize(
    ("config", "where", "candidates"),
    [
        (CHANNEL4, CONV, (IM2COL_INT4, INT8)),
        (CHANNEL4, ("CONV_2D", (8, 64, 1)), (FULLY_CONNECTED_INT4, INT8)),
        (CHANNEL4, ("CONV_2D", (8, 3, 1)), (INT8,)),  # an odd number of products
        (CHANNEL4, DENSE, (FULLY_CONNECTED_INT4, INT8)),
        (CHANNEL4.replace(weight_bits=2), DENSE, (FULLY_CONNECTED_INT2, FULLY_CONNECTED_INT4, INT8)),
        (CHANNEL4.replace(weight_bits=2), CONV, (IM2COL_INT4, INT8)),
        (CHANNEL4.replace(weight_bits=3), DENSE, (FULLY_CONNECTED_INT4, INT8)),
        (CHANNEL4.replace(weight_bits=5), DENSE, (INT8,)),
        (CHANNEL4.replace(weight_bits=8), DENSE, (INT8,)),
        (CHANNEL4.replace(activation_bits=16), DENSE, (INT8,)),
        (CHANNEL4, ("DEPTHWISE_CONV_2D", (8, 1, 9)), (INT8,)),
        (CHANNEL4, ("TRANSPOSE_CONV", (8, 64, 9)), (INT8,)),
        (FLOAT4, DENSE, (INLINE,)),
    ],
)
def test_choice_for_xnnpack(config, where, candidates):
    assert plan_layout("layer", config.replace(target="cpu"), requests(config, *where)).candidates == candidates


def test_a_kernel_gets_what_all_its_uses_can_have():
    plan = plan_layout("layer", CHANNEL4, requests(CHANNEL4, "CONV_2D", (8, 64, 1), "FULLY_CONNECTED"))
    assert plan.candidates == (FULLY_CONNECTED_INT4, INT8)
    plan = plan_layout("layer", CHANNEL4, requests(CHANNEL4, *CONV, "TRANSPOSE_CONV"))
    assert plan.candidates == (INT8,)


def test_size_is_settled_by_the_codes():
    codes = np.full((4, 2, 1), 3, np.int8)
    small = BlockScales("integer", np.ones(2, np.float32), np.array([[1, 2], [2, 1]], np.int8), (2, 1))
    large = BlockScales("integer", np.ones(2, np.float32), np.array([[1, 2], [3, 1]], np.int8), (2, 1))
    size = LayoutPlan(EITHER)
    assert settle_layout("layer", size, QuantizedWeight(codes, small, 3)) is INT4
    assert settle_layout("layer", size, QuantizedWeight(codes, large, 3)) is INT8
    assert settle_layout("layer", LayoutPlan((INLINE,)), QuantizedWeight(codes, large, 3)) is INLINE
    lowest = np.full((4, 2, 1), -4, np.int8)
    assert settle_layout("layer", size, QuantizedWeight(lowest, small, 3)) is INT4
    config = plain_config(PerBlock(2, 1), "integer", 3, layout="int4")
    four = plan_layout("layer", config, requests(config, "CONV_2D", (4, 2, 1)))
    with pytest.raises(
        LayoutError,
        match="'layer' cannot have the layout 'int4'.* from 0 to 9, and INT4 from -8 to 7.*'int8', 'inline', 'compos",
    ):
        settle_layout("layer", four, QuantizedWeight(codes, large, 3))


def test_a_weight_that_no_candidate_holds_is_refused_by_name():
    factors = np.array([[1, 2], [3, 1]], np.int8)
    weight = QuantizedWeight(np.full((4, 2, 1), 100, np.int8), BlockScales("integer", np.ones(2), factors, (2, 1)), 8)
    with pytest.raises(LayoutError, match="layer 'big' cannot have the layout 'int8': .*no exact int8 form"):
        settle_layout("big", LayoutPlan(EITHER, ("inline",)), weight)


@pytest.mark.parametrize(
    ("layout", "config", "where", "message"),
    [
        ("int4", CHANNEL4.replace(weight_bits=8), CONV, "8 bits; it can have 'int8', 'inline', 'composite'"),
        ("int4", CHANNEL4, ("TRANSPOSE_CONV", (8, 4, 9)), "no INT4 kernel for TRANSPOSE_CONV; it can have 'int8'"),
        ("int4", CHANNEL4.replace(activation_bits=16), CONV, "8-bit activations only"),
        ("int4", FLOAT4, CONV, "float scales for every 32 of its 64 input channels.*; it can have 'inline'"),
        ("int8", FLOAT4, DENSE, "float scales for every 32.*; it can have 'native', 'inline', 'composite'"),
        ("native", FLOAT4, CONV, "FULLY_CONNECTED and not for CONV_2D"),
        ("native", FLOAT4.replace(weight_bits=8), DENSE, "8 bits"),
        ("native", FLOAT4, ("FULLY_CONNECTED", (3, 64, 1)), "3 outputs"),
        ("native", FLOAT4, ("FULLY_CONNECTED", (8, 80, 1)), "32 of 80 inputs"),
        ("native", FLOAT4, ("FULLY_CONNECTED", (8, 16, 1)), "16 of 16 inputs"),
        ("native", FLOAT4.replace(granularity=PerBlock(2, 16)), DENSE, "16 of 64 inputs"),
        ("native", INTEGER4, DENSE, "16 of 64 inputs.*; it can have 'int8', 'inline', 'composite'$"),
        ("native", INTEGER4.replace(scaler="shift"), DENSE, "; it can have 'int8', 'inline', 'composite'$"),
        (
            "native",
            CHANNEL4,
            CONV,
            "; it can have 'int8', 'int4', 'inline', 'composite', 'im2col_int4', 'weights_only'$",
        ),
        ("native", plain_config(PerTensor(), "shift", 4), DENSE, "shifts span more than the float16"),
    ],
)
def test_impossible_layouts_are_refused(layout, config, where, message):
    with pytest.raises(LayoutError, match=f"layer 'block_1' cannot have the layout '{layout}': .*{message}"):
        plan_layout("block_1", config.replace(layout=layout), requests(config, *where))
    assert INLINE.obstacle(*requests(config, *where)) is None
