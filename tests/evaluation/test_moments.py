from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.evaluation.moments import Moments


@given(seed=st.integers(0, 2**32), offset=st.sampled_from([0.0, -3.0, 1e6]), cuts=st.sets(st.integers(1, 39)))
def test_those_of_parts_add_up(seed, offset, cuts):
    values = np.random.default_rng(seed).normal(offset, 1.0, 40)
    found = reduce(add, map(Moments.of, np.split(values, sorted(cuts))))
    assert found.count == 40 and found.mean == pytest.approx(values.mean(), abs=1e-9)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / np.sqrt(40), rel=1e-6)


def test_a_single_sample_has_no_standard_error():
    assert Moments.of(np.ones(1)).standard_error is None
    assert (Moments.of(np.ones(1)) + Moments.of(np.ones(1))).standard_error == 0.0
