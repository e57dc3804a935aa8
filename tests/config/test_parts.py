import pytest

from tfptq.config import (
    Calibration,
    LayerOverride,
    MixedPrecision,
    PerBlock,
    Rounding,
    exactly,
    override,
)
from tfptq.core.rounding import NoOptions
from tfptq.core.rounding.methods.adaround import AdaRoundOptions
from tfptq.core.rounding.methods.attention import AttentionRoundOptions


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("nearest", {"steps": 100}),
        ("coordinate", {"learning_rate": 0.1}),
        ("coordinate", {"tau": 1.0}),
        ("adaround", {"tau": 1.0}),
        ("nearest", {"damping": 5.0}),
        ("nearest", {"most_inputs": 640}),
    ],
)
def test_options_that_a_rounding_method_does_not_have_are_refused(method, options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"rounding\.{name}=.* has no effect without .*'attention'"):
        Rounding(method, **options)


def test_rounding_builds_the_options_of_its_method():
    rounding = Rounding("attention", tau=1.0, steps=20)
    assert rounding.options() == AttentionRoundOptions(tau=1.0, steps=20)
    assert Rounding("adaround", learning_rate=0.5).options() == AdaRoundOptions(learning_rate=0.5)
    assert Rounding("coordinate", damping=1.0).options() == Rounding().options() == NoOptions()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "magic"}, "calibration.method"),
        ({"percentile": 30}, "calibration.percentile"),
        ({"bins": 8}, "calibration.bins"),
        ({"method": "min_max", "percentile": 90.0}, "percentile=90.0 has no effect without method='percentile'"),
        ({"method": "mse", "percentile": 90.0}, "percentile=90.0 has no effect without method='percentile'"),
        ({"method": "min_max", "bins": 512}, "bins=512 has no effect without method='percentile' or method='mse'"),
    ],
)
def test_bad_calibration(changes, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**changes)


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_is_positive(budget):
    with pytest.raises(ValueError, match=f"mixed_precision.budget_bytes is {budget}; it must be between 1 and"):
        MixedPrecision(budget_bytes=budget)


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("block_*", ["block_1", "block_12", "block_x"]),
        ("re:block_[0-9]+", ["block_1", "block_12"]),
        ("re:block_1", ["block_1"]),  # of the whole name
        ("re:(?i)STEM|block_x", ["stem", "block_x"]),
        ("re:", []),
        ("[r]e:x", ["re:x"]),
    ],
)
def test_patterns_are_shell_style_or_regular_expressions(pattern, names):
    layers = ["stem", "block_1", "block_12", "block_x", "re:x"]
    assert [name for name in layers if override(pattern).matches(name)] == names


@pytest.mark.parametrize("name", ["dense", "a*", "dense[1]", "re:dense", "re:[a"])
def test_exactly_one_layer(name):
    item = override(exactly(name), skip=True)
    others = ["dense", "ab", "a", "dense1", "re:densely", "xre:dense"]
    assert item.matches(name) and item.names(name) and not any(map(item.matches, set(others) - {name}))
    assert not override("re:dense").names("re:dense")


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("re:block_(", r"override pattern 're:block_\(' is no regular expression: missing \)"),
        (3, "the pattern of an override is 3; give the name of a layer or a pattern of names"),
    ],
)
def test_patterns_that_are_none(pattern, message):
    with pytest.raises(ValueError, match=message):
        override(pattern, skip=True)


def test_override_refuses_fields_of_the_whole_model():
    with pytest.raises(ValueError, match="field of the override for 'stem' is 'calibration'"):
        override("stem", calibration=Calibration())
    assert override("a", skip=True, scaler="float") == LayerOverride("a", (("scaler", "float"), ("skip", True)))


@pytest.mark.parametrize(
    "sides",
    [{}, {"output_channels": 3}, {"input_channels": 3}, {"input_blocks": 2, "output_channels": 1}, {"input_blocks": 0}],
)
def test_blocks_need_both_sides_or_a_number(sides):
    with pytest.raises(ValueError, match="PerBlock"):
        PerBlock(**sides)
