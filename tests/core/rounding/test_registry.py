from dataclasses import dataclass

import numpy as np
import pytest

from tfptq.config import Rounding
from tfptq.core.blocks import float_scales
from tfptq.core.rounding import ROUNDING_METHODS, NoOptions, round_weight, rounding_method
from tfptq.core.statistics import dense_statistics


@pytest.fixture
def registry():
    """The registry, as it was after the test."""
    before = dict(ROUNDING_METHODS)
    yield ROUNDING_METHODS
    ROUNDING_METHODS.clear()
    ROUNDING_METHODS.update(before)


def test_the_methods_there_are():
    assert set(ROUNDING_METHODS) == {"nearest", "coordinate", "attention", "adaround"}
    assert [name for name, method in ROUNDING_METHODS.items() if not method.learns] == ["nearest"]


def test_a_new_method_is_one_function(registry):
    @dataclass(frozen=True)
    class Options:
        steps: int = 3

    seen = []

    @rounding_method("up", Options)
    def up(problem, options):
        seen.append(options)
        return np.clip(np.ceil(problem.ratio), *problem.code_range)

    rounding = Rounding("up", steps=7, damping=0.0)
    assert rounding.learns and rounding.options() == Options(7)
    view = np.full((1, 2, 1), 0.4)
    x = np.random.default_rng(0).normal(size=(50, 1)).astype("f").repeat(2, axis=1)
    statistics = dense_statistics(x, x.sum(axis=1, keepdims=True)).centred()  # the sum of the weights should be 1
    scales = float_scales(np.full((1, 1), 0.5), (1, 2))
    rounded = round_weight(view, scales, 4, statistics, "up", rounding.options(), damping=0.0)
    assert seen == [Options(7)] and (rounded.codes == 1).all()
    with pytest.raises(ValueError, match="rounding.tau=1.0 has no effect without method='attention'"):
        Rounding("up", tau=1.0)


def test_what_is_no_method_is_refused(registry):
    @dataclass
    class Mutable:
        pass

    @dataclass(frozen=True)
    class Incomplete:
        steps: int

    def codes(problem, options):
        return problem.nearest()

    with pytest.raises(TypeError, match="options of rounding 'new' are .*Mutable.*; give a frozen dataclass"):
        rounding_method("new", Mutable)(codes)
    with pytest.raises(TypeError, match="options of rounding 'new' have no default for steps"):
        rounding_method("new", Incomplete)(codes)
    with pytest.raises(TypeError, match="<lambda> of rounding 'new' must take a problem and its options"):
        rounding_method("new")(lambda problem: problem.nearest())
    with pytest.raises(ValueError, match="there is a rounding method 'nearest' already"):
        rounding_method("nearest", NoOptions)(codes)
