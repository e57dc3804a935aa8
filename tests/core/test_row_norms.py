import numpy as np
import pytest

from tfptq.core.row_norms import ORDER, RowNorms


@pytest.fixture
def kernel():
    rng = np.random.default_rng(0)
    return RowNorms(rng.uniform(0.0, 3.0, (5, 6)), rng.uniform(0.0, 3.0, 5)), rng.uniform(0.5, 2.0, 6)


def test_norms_are_a_little_above_the_largest_weight_of_each_row(kernel):
    norms, factors = kernel
    weights = norms.powers ** (1.0 / ORDER) / factors
    maxima = np.maximum(weights.max(axis=1), norms.others ** (1.0 / ORDER))
    exact = np.sum(maxima**2)
    assert exact <= norms.at(factors)[0] <= 7 ** (2.0 / ORDER) * exact


def test_pulls_are_the_derivative_by_the_logarithms_of_the_factors(kernel):
    norms, factors = kernel
    step = 1e-6 * np.eye(len(factors))
    slopes = [(norms.at(factors * np.exp(d))[0] - norms.at(factors * np.exp(-d))[0]) / 2e-6 for d in step]
    np.testing.assert_allclose(-2.0 * norms.at(factors)[1] * factors**-ORDER, slopes, rtol=1e-6)


def test_a_kernel_of_zeros_has_finite_norms():
    norms = RowNorms(np.zeros((2, 3)), np.zeros(2))
    rows, pulls = norms.at(np.ones(3))
    assert norms.unit == 1.0 and np.isfinite(rows) and np.isfinite(pulls).all()
