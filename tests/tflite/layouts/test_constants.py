import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.affine import weight_code_range
from tfptq.tflite.layouts.constants import pack
from tfptq.tflite.model_parts import unpack


@given(st.sampled_from([2, 4]), st.data())
def test_packing_round_trip(bits, data):
    codes = data.draw(st.lists(st.integers(*weight_code_range(bits)), min_size=1, max_size=9))
    codes = np.array(codes, np.int8)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8 and packed.size == math.ceil(codes.size * bits / 8)
    np.testing.assert_array_equal(unpack(packed, bits, codes.size), codes)


def test_the_first_code_lies_in_the_lowest_bits():
    np.testing.assert_array_equal(pack(np.array([1, -2, -8], np.int8), 4), [0xE1, 0x08])
    np.testing.assert_array_equal(pack(np.array([1, -2, 0, -1, 1], np.int8), 2), [0b11001001, 0b01])


def test_codes_of_more_bits_are_refused():
    with pytest.raises(ValueError, match="codes from -9 to 0 do not fit 4 bits, -8 to 7"):
        pack(np.array([-9, 0], np.int8), 4)
    with pytest.raises(ValueError, match="codes from -3 to 0 do not fit 2 bits, -2 to 1"):
        pack(np.array([-3, 0], np.int8), 2)
