"""The lossy coding length: formula, invariances, order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.coding_length import coding_length, coding_rate


@settings(max_examples=30)
@given(m=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 99), eps=st.floats(0.01, 2.0))
def test_equals_the_formula_on_either_gram_matrix(m, n, seed, eps):
    matrix = np.random.default_rng(seed).normal(size=(n, m))
    gram = np.eye(n) + matrix @ matrix.T / (m * eps**2)
    expected = (m + n) / 2 * np.log2(np.linalg.eigvalsh(gram)).sum()
    assert coding_length(matrix, eps) == pytest.approx(expected, rel=1e-6)


def test_rate_ignores_the_scale_and_the_orientation():
    view = np.random.default_rng(0).normal(size=(8, 5, 3))
    assert coding_rate(1e6 * view) == pytest.approx(coding_rate(view))
    assert coding_rate(view.transpose(1, 2, 0).reshape(15, 8, 1)) == pytest.approx(coding_rate(view))


def test_gaussian_weights_of_any_shape_need_what_rate_and_distortion_theory_says():
    for shape in ((16, 4096, 1), (64, 20000, 1), (4096, 16, 1)):
        view = np.random.default_rng(0).normal(size=shape)
        assert coding_rate(view, eps=0.1) == pytest.approx(0.5 * np.log2(1 + 1 / 0.1**2), rel=0.02)


def test_redundant_layers_need_fewer_bits():
    random = np.random.default_rng(1)
    full = random.normal(size=(32, 64, 1))
    low_rank = (random.normal(size=(32, 4)) @ random.normal(size=(4, 64)))[:, :, None]
    assert coding_rate(low_rank) < 0.6 * coding_rate(full)
    assert coding_rate(np.zeros((4, 3, 9))) == 0.0


def test_a_coarser_distortion_is_cheaper():
    view = np.random.default_rng(2).normal(size=(16, 16, 1))
    assert coding_rate(view, eps=0.2) < coding_rate(view, eps=0.1)


def test_errors():
    with pytest.raises(ValueError, match="eps is 0"):
        coding_length(np.ones((2, 2)), 0.0)
    with pytest.raises(ValueError, match="finite matrix"):
        coding_length(np.full((2, 2), np.nan), 0.1)
