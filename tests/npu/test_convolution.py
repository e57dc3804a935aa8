"""The tap-by-tap sums against the definition, element by element."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.npu.convolution import Geometry, convolution_sums, dense_sums, depthwise_sums, transposed_sums

GEOMETRIES = st.builds(
    Geometry,
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.sampled_from([1, 2, 5, 2**15]), st.sampled_from([1, 2, 4])),
    padding=st.sampled_from(["SAME", "VALID"]),
)


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.integers(-9, 10, shape) for shape in shapes]


def defined(x, codes, geometry, channel_of):
    """``channel_of(o, i)`` is the input channel that weight ``(o, i)`` multiplies; None: left out."""
    height, width = (geometry.output_size(x.shape[1 + axis], axis) for axis in (0, 1))
    result = np.zeros((x.shape[0], height, width, codes.shape[0]), np.int64)
    for row, column, o, i in np.ndindex(height, width, *codes.shape[:2]):
        for tap, tap_row, tap_column in geometry.taps():
            y = row * geometry.stride[0] + tap_row * geometry.dilation[0] - geometry.pad_before(x.shape[1], 0)
            z = column * geometry.stride[1] + tap_column * geometry.dilation[1] - geometry.pad_before(x.shape[2], 1)
            if channel_of(o, i) is not None and 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                result[:, row, column, o] += x[:, y, z, channel_of(o, i)] * codes[o, i, tap]
    return result


@settings(max_examples=40)
@given(GEOMETRIES, st.integers(1, 2), st.integers(0, 100))
def test_convolution(geometry, groups, seed):
    taps = geometry.kernel[0] * geometry.kernel[1]
    x, codes = arrays(seed, (2, 6, 7, 3 * groups), (2 * groups, 3, taps))

    def channel_of(o, i):
        return o // 2 * 3 + i if 1 <= i < 3 else None

    expected = defined(x, codes, geometry, channel_of)
    assert np.array_equal(convolution_sums(x, codes, geometry, slice(1, 3)), expected)


@settings(max_examples=30)
@given(GEOMETRIES, st.integers(1, 2), st.integers(0, 100))
def test_depthwise(geometry, multiplier, seed):
    taps = geometry.kernel[0] * geometry.kernel[1]
    x, codes = arrays(seed, (1, 6, 7, 3), (3 * multiplier, 1, taps))
    expected = defined(x, codes, geometry, lambda o, i: o // multiplier)
    assert np.array_equal(depthwise_sums(x, codes, geometry), expected)


@settings(max_examples=30)
@given(GEOMETRIES, st.integers(0, 100), st.integers(5, 9), st.integers(5, 9))
def test_transposed_convolution_is_the_adjoint(geometry, seed, height, width):
    """<conv(y), x> = <y, transposed(x)>, the definition of a transposed convolution."""
    geometry = Geometry(geometry.kernel, geometry.stride, padding=geometry.padding)
    taps = geometry.kernel[0] * geometry.kernel[1]
    y, codes = arrays(seed, (1, height, width, 2), (2, 3, taps))
    forward = convolution_sums(y, codes.transpose(1, 0, 2), geometry, slice(0, 2))  # 3 channels
    (x,) = arrays(seed + 1, forward.shape)
    backward = transposed_sums(x, codes, geometry, slice(0, 3), (height, width))
    assert (forward * x).sum() == (y * backward).sum()


def test_dense_over_a_slice():
    x, codes = arrays(0, (4, 1, 6), (5, 6, 1))
    assert np.array_equal(dense_sums(x, codes, slice(2, 5)), x[:, 0, 2:5] @ codes[:, 2:5, 0].T)


def test_dense_over_gathered_taps():
    x, codes = arrays(0, (4, 3, 6), (5, 6, 3))
    expected = np.einsum("pti,oit->po", x[:, :, 2:5], codes[:, 2:5])
    assert np.array_equal(dense_sums(x, codes, slice(2, 5)), expected)
