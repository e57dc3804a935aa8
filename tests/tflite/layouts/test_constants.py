import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.tflite.layouts.constants import pack_int4
from tfptq.tflite.model_reader import _unpack_int4


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=9))
def test_packing_round_trip(codes):
    codes = np.array(codes, np.int8)
    packed = pack_int4(codes)
    assert packed.size == math.ceil(codes.size / 2)
    np.testing.assert_array_equal(_unpack_int4(packed, codes.size), codes)


def test_codes_of_more_bits_are_refused():
    with pytest.raises(ValueError, match="codes from -9 to 0 do not fit 4 bits, -8 to 7"):
        pack_int4(np.array([-9, 0], np.int8))
