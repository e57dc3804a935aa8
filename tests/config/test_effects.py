import pytest
from plain_config import plain_config

from tfptq.config import (
    MixedPrecision,
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    override,
)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"activation_aware": True}, "activation_aware=True has no effect: no weight is fitted on statistics; give"),
        (
            {"activation_aware": True, "activation_bits": 16, "rounding": "coordinate"},
            "activation_aware=True has no effect: 16-bit activations .* give activation_bits of 8 or less, or leave it",
        ),
        ({"statistics_samples": 32}, "statistics_samples=32 has no effect: no weight is fitted on statistics"),
        ({"statistics_samples": 32, "weight_scale": "mse"}, "statistics_samples=32 has no effect"),
        ({"multipliers": (2, 3)}, r"multipliers=\(2, 3\) has no effect: only scaler='integer' .* give it as well, or"),
        ({"overrides": [override("a", multipliers=(2, 3))]}, r"multipliers=\(2, 3\) has no effect"),
        ({"rotate": True}, "rotate=True has no effect: weights of 8 bits are not rotated, and no layer has fewer"),
        ({"rotate": True, "mixed_precision": MixedPrecision((8,))}, "rotate=True has no effect"),
        ({"reorder": True, "granularity": PerChannel()}, r"reorder=True has no effect: .* give granularity=PerBlock"),
    ],
)
def test_fields_without_an_effect_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        plain_config(**changes)
    with pytest.raises(ValueError, match=message):
        plain_config().replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_aware": True, "rounding": "coordinate"},
        {"statistics_samples": 32, "weight_scale": "output"},
        {"statistics_samples": 32, "overrides": [override("a", rounding="coordinate")]},
        {"multipliers": (1, 2), "overrides": [override("a", granularity=PerBlock(2, 2), scaler="integer")]},
        {"rotate": True, "overrides": [override("a", weight_bits=4)]},
        {"rotate": True, "mixed_precision": MixedPrecision((4, 8))},
        {"reorder": True, "overrides": [override("a", granularity=PerBlock(2, 2))]},
    ],
)
def test_one_layer_that_reads_a_field_is_enough(changes):
    config = plain_config(**changes)
    assert QuantizationConfig.from_json(config.to_json()) == config


def test_replace_drops_what_loses_its_effect_unless_it_is_named():
    block = QuantizationConfig.from_preset("w4a8_block")
    wide = block.replace(weight_bits=8)
    assert (block.rotate, wide.rotate, wide.reorder) == (True, False, True)
    assert wide.label == "w4a8_block (changed: weight_bits, rotate)"
    assert not block.replace(granularity=PerChannel(), scaler="float").reorder
    few = block.replace(multipliers=(1, 2))
    assert few.replace(scaler="shift").multipliers is None and few.replace(layout="int8").multipliers == (1, 2)
    few_samples = QuantizationConfig.from_preset("w8a8_channel").replace(statistics_samples=32)
    assert few_samples.replace(rounding="nearest").statistics_samples == QuantizationConfig().statistics_samples
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


def test_a_default_that_nothing_reads_is_no_mistake():
    assert QuantizationConfig(rounding="nearest").statistics_samples == 64
    with pytest.raises(ValueError, match="statistics_samples=32 has no effect"):
        QuantizationConfig(rounding="nearest", statistics_samples=32)


def test_the_scaler_follows_the_granularity_unless_it_is_named():
    block = QuantizationConfig.from_preset("w4a8_block").replace(multipliers=(1, 2))
    assert QuantizationConfig(PerTensor()).scaler == "shift"
    assert QuantizationConfig(PerChannel()).scaler == QuantizationConfig(PerBlock(2, 4)).scaler == "float"
    assert QuantizationConfig().replace(granularity=PerChannel()).scaler == "float"
    assert block.replace(granularity=PerBlock(2, 4)).scaler == "integer"
    channels = block.replace(granularity=PerChannel())
    assert (channels.scaler, channels.multipliers, channels.reorder) == ("float", None, False)
    layer = block.replace(overrides=[override("a", granularity=PerTensor())]).for_layer("a")
    assert layer.scaler == "shift"
    with pytest.raises(ValueError, match="scaler='integer' needs granularity=PerBlock"):
        block.replace(granularity=PerChannel(), scaler="integer")


def test_layers_keep_only_what_has_an_effect_on_them():
    items = [override("a", granularity=PerChannel(), scaler="float", weight_bits=8, rounding="nearest")]
    config = QuantizationConfig.from_preset("w4a8_block").replace(multipliers=(1, 2), overrides=items)
    layer = config.for_layer("a")
    assert (layer.multipliers, layer.rotate, layer.reorder) == (None, False, False)
    assert (config.for_layer("b").multipliers, config.for_layer("b").rotate) == ((1, 2), True)
    assert QuantizationConfig.from_json(layer.to_json()) == layer
