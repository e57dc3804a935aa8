import math

import numpy as np
import pytest

from tfptq.evaluation.fidelity import fidelity

RNG = np.random.default_rng(0)


def test_scores_of_classes():
    expected = RNG.normal(size=(100, 5)).astype(np.float32)
    found = expected + 0.1 * RNG.normal(size=(100, 5)).astype(np.float32)
    same = expected.argmax(axis=1) == found.argmax(axis=1)
    result = fidelity("scores", expected, found)
    assert result.agreement == same.mean() < 1
    assert result.agreement_error == pytest.approx(same.std(ddof=1) / 10)
    assert result.snr_db == pytest.approx(20, abs=0.7)


def test_one_column_decides_if_it_holds_probabilities():
    expected, found = np.float32([[0.2], [0.6], [0.7]]), np.float32([[0.3], [0.4], [0.9]])
    assert fidelity("p", expected, found).agreement == pytest.approx(2 / 3)
    assert fidelity("p", 5 * expected, 5 * found).agreement is None


def test_exact_outputs_and_a_single_sample():
    result = fidelity("scores", np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
    assert (result.snr_db, result.agreement, result.agreement_error) == (math.inf, 1.0, None)


def test_integers_agree_where_they_are_equal():
    assert fidelity("classes", np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])).agreement == 0.75


def test_another_shape_is_another_model():
    with pytest.raises(ValueError, match="output 'a' of the file has the shape .*: it is another model"):
        fidelity("a", np.zeros((2, 3)), np.zeros((2, 4)))
