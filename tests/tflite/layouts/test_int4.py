import math

import numpy as np
import pytest
from layout_files import EVERYWHERE, LAYERS, STEP, emitted, output, samples
from plain_config import plain_config

import tfptq
from tfptq.config import PerBlock, PerChannel, PerTensor
from tfptq.core.blocks import QuantizedWeight, float_scales
from tfptq.tflite.layouts import INT4, INT8

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

INT4_CASES = [(kind, "channel") for kind in LAYERS if kind != "transposed"] + [
    (kind, config) for kind in ("conv", "depthwise", "dense") for config in ("tensor", "shift scaler", "one column")
]


@pytest.mark.parametrize(("kind", "config"), INT4_CASES)
def test_int4_equals_int8(kind, config):
    config = {
        "channel": plain_config(PerChannel(), weight_bits=4),
        "tensor": plain_config(PerTensor(), weight_bits=4),
        "shift scaler": plain_config(PerTensor(), "shift", 4),
        "one column": plain_config(PerBlock(2, 64), "integer", 3),
    }[config]
    (int4, _, kernel), (int8, _, _) = emitted(kind, INT4, config), emitted(kind, INT8, config)
    assert tfptq.inspect(int4).weights[0].bytes == math.ceil(kernel.weight.codes.size / 2)
    assert tfptq.verify(int4).checks
    for resolver, runtime in EVERYWHERE:
        difference = np.abs(
            output(int4, samples(kind), resolver, runtime) - output(int8, samples(kind), resolver, runtime)
        )
        # XNNPACK rounds otherwise than the other kernels and does not run all INT4 layers.
        assert difference.max() <= (1.01 * STEP if resolver == "AUTO" else 0.0), (resolver, runtime)


def test_codes_that_leave_int4_are_an_obstacle():
    scales = float_scales(np.ones((2, 1)), (1, 3))
    weight = QuantizedWeight(np.array([[[-8], [0], [7]]] * 2, np.int8), scales, 8)
    assert INT4.obstacle_of(weight) is None
    weight.codes[0, 0] = -9
    assert "go from -9 to 7, and INT4 from -8 to 7" in INT4.obstacle_of(weight)
    assert INT8.obstacle_of(weight) is None


def test_float_scales_inside_a_row_are_an_obstacle_of_both():
    weight = QuantizedWeight(np.zeros((2, 4, 1), np.int8), float_scales(np.ones((2, 2)), (1, 2)), 4)
    for layout in (INT8, INT4):
        assert layout.obstacle_of(weight) == "its blocks have no exact int8 form"
        with pytest.raises(ValueError, match="no exact int8 form"):
            layout.stored_bytes(weight, None)
