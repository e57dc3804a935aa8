import pytest

from tfptq.config import (
    Calibration,
    MixedPrecision,
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    Rounding,
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


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"activation_aware": True}, "activation_aware=True has no effect: no weight is fitted on statistics; give"),
        (
            {"activation_aware": True, "activation_bits": 16, "rounding": "coordinate"},
            "activation_aware=True has no effect: 16-bit activations .* give activation_bits of 8 or less, or leave it",
        ),
        ({"statistics_samples": 64}, "statistics_samples=64 has no effect: no weight is fitted on statistics"),
        ({"statistics_samples": 64, "weight_scale": "mse"}, "statistics_samples=64 has no effect"),
        ({"multipliers": (2, 3)}, r"multipliers=\(2, 3\) has no effect: only scaler='integer' .* give it as well, or"),
        ({"overrides": [override("a", multipliers=(2, 3))]}, r"multipliers=\(2, 3\) has no effect"),
        ({"rotate": True}, "rotate=True has no effect: weights of 8 bits are not rotated, and no layer has fewer"),
        ({"rotate": True, "mixed_precision": MixedPrecision((8,))}, "rotate=True has no effect"),
        ({"reorder": True, "granularity": PerChannel()}, r"reorder=True has no effect: .* give granularity=PerBlock"),
    ],
)
def test_fields_without_an_effect_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig(**changes)
    with pytest.raises(ValueError, match=message):
        QuantizationConfig().replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_aware": True, "rounding": "coordinate"},
        {"statistics_samples": 64, "weight_scale": "output"},
        {"statistics_samples": 64, "overrides": [override("a", rounding="coordinate")]},
        {"multipliers": (1, 2), "overrides": [override("a", granularity=PerBlock(2, 2), scaler="integer")]},
        {"rotate": True, "overrides": [override("a", weight_bits=4)]},
        {"rotate": True, "mixed_precision": MixedPrecision((4, 8))},
        {"reorder": True, "overrides": [override("a", granularity=PerBlock(2, 2))]},
    ],
)
def test_one_layer_that_reads_a_field_is_enough(changes):
    config = QuantizationConfig(**changes)
    assert QuantizationConfig.from_json(config.to_json()) == config


def test_replace_drops_what_loses_its_effect_unless_it_is_named():
    block = QuantizationConfig.from_preset("w4a8_block")
    wide = block.replace(weight_bits=8)
    assert (block.rotate, wide.rotate, wide.reorder) == (True, False, True)
    assert wide.label == "w4a8_block (changed: weight_bits, rotate)"
    assert not block.replace(granularity=PerChannel(), scaler="float").reorder
    few = block.replace(multipliers=(1, 2))
    assert few.replace(scaler="shift").multipliers is None and few.replace(layout="int8").multipliers == (1, 2)
    nearest = QuantizationConfig.from_preset("w8a8_channel").replace(rounding="nearest")
    assert nearest.statistics_samples is None
    learned = QuantizationConfig(PerChannel(), rounding="coordinate", activation_aware=True)
    assert not learned.replace(activation_bits=16).activation_aware
    for field, changes in (
        ("rotate", {"weight_bits": 8}),
        ("reorder", {"granularity": PerTensor(), "scaler": "float"}),
    ):
        with pytest.raises(ValueError, match=f"{field}=True has no effect"):
            block.replace(**{field: True}, **changes)
    with pytest.raises(ValueError, match="rotate=True has no effect"):
        block.replace_json({"weight_bits": 8, "rotate": True})
    assert not block.replace_json({"weight_bits": 8}).rotate
