import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import QuantizedWeight, WeightView, float_scales
from tfptq.tflite.layouts.unpacking import unpacking

VIEWS = [
    lambda o, i: WeightView((o, 2, 3, i), (0,), (3,), (1, 2)),
    lambda o, i: WeightView((1, 2, 3, o), (3,), (0,), (1, 2)),
    lambda o, i: WeightView((o, i), (0,), (1,), ()),
    lambda o, i: WeightView((o, 2, i), (0,), (2, 1), ()),
]


@given(st.sampled_from(VIEWS), *[st.integers(1, 9)] * 4, st.sampled_from([2, 4, 8]))
def test_unpacked_kernels_are_exact(view, outputs, inputs, height, width, bits):
    view = view(outputs, inputs)
    rng = np.random.default_rng(outputs * 1000 + inputs * 100 + height * 10 + width)
    outputs, inputs, _ = view.view_shape
    height, width = min(height, outputs), min(width, inputs)
    scales = float_scales(rng.uniform(0.01, 1, (-(-outputs // height), -(-inputs // width))), (height, width))
    low, high = weight_code_range(bits)
    weight = QuantizedWeight(rng.integers(low, high + 1, view.view_shape).astype(np.int8), scales, bits)
    parts = unpacking(weight, view)
    assert parts.codes.ndim <= 4
    kernel = (parts.codes * parts.factors).reshape(view.shape)
    np.testing.assert_array_equal(kernel, view.from_view(weight.dequantize()))
    if outputs % height == 0 and inputs % width == 0 and len(view.input_axes) == 1:
        assert parts.factors.size == scales.count
