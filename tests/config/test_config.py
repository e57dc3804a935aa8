import json

import numpy as np
import pytest

from tfptq.config import (
    DEFAULT_PRESET,
    Calibration,
    LayerOverride,
    MixedPrecision,
    PerBlock,
    PerChannel,
    QuantizationConfig,
    Rounding,
    override,
    resolve_config,
)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"equalize": "no"}, "equalize is 'no'; it must be of the type bool"),
        ({"weight_bits": 4.0}, "weight_bits is 4.0; it must be of the type int"),
        ({"statistics_samples": 12.5}, "statistics_samples is 12.5; it must be of the type int or None"),
        ({"rounding": Rounding}, "rounding is <class .*; it must be of the type Rounding"),
        ({"overrides": override("a", skip=True)}, "overrides is LayerOverride.*; it must be of the type tuple"),
        ({"calibration": "minmax"}, "calibration.method is 'minmax'; .*; did you mean 'min_max'"),
        ({"weight_scale": "cosine"}, "weight_scale is 'cosine'"),
        ({"granularity": "channel"}, "granularity is 'channel'"),
        ({"scaler": "int"}, "scaler is 'int'"),
        ({"weight_bits": 9}, "weight_bits is 9"),
        ({"activation_bits": 2}, "activation_bits is 2"),
        ({"weight_scale": "guess"}, "weight_scale is 'guess'"),
        ({"metadata": "some"}, "metadata is 'some'"),
        ({"input_type": "int4"}, r"input_type \(with activation_bits=8\) is 'int4'"),
        ({"activation_bits": 16, "input_type": "int8"}, r"input_type \(with activation_bits=16\) is 'int8'"),
        ({"output_type": "float16"}, r"output_type \(with activation_bits=8\) is 'float16'"),
        ({"scaler": "shift", "granularity": PerChannel()}, r"needs PerTensor\(\)"),
        ({"overrides": ("stem",)}, "build its members with override"),
        ({"overrides": (override("stem", weight_bits=1),)}, "the override for 'stem': weight_bits is 1"),
        ({"overrides": (override("stem", rounding="magic"),)}, "the override for 'stem': rounding.method is 'magic'"),
        ({"colour": 1}, "config field is 'colour'"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig().replace(**changes)


def test_layers_keep_only_what_has_an_effect_on_them():
    items = [override("a", granularity=PerChannel(), scaler="float", weight_bits=8, rounding="nearest")]
    config = QuantizationConfig.from_preset("w4a8_block").replace(multipliers=(1, 2), overrides=items)
    layer = config.for_layer("a")
    assert (layer.multipliers, layer.rotate, layer.reorder) == (None, False, False)
    assert (config.for_layer("b").multipliers, config.for_layer("b").rotate) == ((1, 2), True)
    assert QuantizationConfig.from_json(layer.to_json()) == layer


def test_overrides_apply_in_order_by_pattern():
    config = QuantizationConfig(
        overrides=[override("block_*", weight_bits=4), override("block_2", weight_bits=6, weight_scale="mse")]
    )
    assert [config.for_layer(name).weight_bits for name in ("stem", "block_1", "block_2")] == [8, 4, 6]
    assert config.for_layer("block_2").weight_scale == "mse"
    assert config.for_layer("block_2").overrides == ()


def test_a_pattern_that_matches_nothing_is_an_error():
    config = QuantizationConfig(overrides=(override("stem", weight_bits=4), override("lgits", skip=True)))
    with pytest.raises(ValueError, match=r"'lgits' matches no weighted layer; there are: stem, logits"):
        config.check_overrides(["stem", "logits"])
    config.replace(overrides=config.overrides[:1]).check_overrides(["stem", "logits"])


@pytest.mark.parametrize("pattern", ["sep", "se?"])
def test_a_pattern_for_a_separable_convolution_is_told_of_its_halves(pattern):
    config = QuantizationConfig(overrides=(override(pattern, weight_bits=4),))
    message = "matches no weighted layer; .* halves: sep_depthwise, sep_pointwise; there are: stem, sep_depthwise, "
    with pytest.raises(ValueError, match=message):
        config.check_overrides(["stem", "sep_depthwise", "sep_pointwise"])
    with pytest.raises(ValueError, match="matches no weighted layer; there are: depthwise, stem"):
        config.check_overrides(["depthwise", "stem"])


def test_numbers_become_pythons_own_and_lists_tuples():
    parts = {"multipliers": [np.int64(2), 3], "scaler": "integer", "weight_bits": np.int8(4)}
    item = override("a", granularity=PerBlock(np.int64(2), 4), **parts)
    config = QuantizationConfig(
        weight_bits=np.int64(8),
        rounding=Rounding("attention", steps=np.int64(20)),
        statistics_samples=np.uint16(64),
        calibration=Calibration("percentile", percentile=np.float32(99.5), bins=np.int32(512)),
        mixed_precision=MixedPrecision(bits=[np.int64(4), 8], budget_bytes=np.int64(1000)),
        overrides=[item],
    )
    for value in (
        config.weight_bits, config.statistics_samples, config.calibration.bins, *config.mixed_precision.bits,
        config.mixed_precision.budget_bytes, dict(item.changes)["multipliers"][0], dict(item.changes)["weight_bits"],
        dict(item.changes)["granularity"].output_channels,
    ):  # fmt: skip
        assert type(value) is int
    assert type(config.calibration.percentile) is float
    assert dict(item.changes)["multipliers"] == (2, 3)
    again = QuantizationConfig.from_json(config.to_json())
    assert again == config and hash(again) == hash(config)
    for wrong in (True, np.float64(8.0), "8"):
        with pytest.raises(ValueError, match="weight_bits is .*; it must be of the type int"):
            QuantizationConfig(weight_bits=wrong)


@pytest.mark.parametrize("budget", [0, -5])
def test_a_budget_is_positive(budget):
    with pytest.raises(ValueError, match=f"mixed_precision.budget_bytes is {budget}; it must be between 1 and"):
        MixedPrecision(budget_bytes=budget)


def test_override_refuses_fields_of_the_whole_model():
    with pytest.raises(ValueError, match="field of the override for 'stem' is 'calibration'"):
        override("stem", calibration=Calibration())
    assert override("a", skip=True, scaler="float") == LayerOverride("a", (("scaler", "float"), ("skip", True)))


def test_configs_are_values():
    config = QuantizationConfig(overrides=[override("stem", weight_bits=4)])
    assert hash(config) == hash(config.replace()) and config == config.replace()
    assert json.loads(config.to_json())["granularity"] == {"type": "PerTensor"}


def test_resolve_config():
    assert resolve_config(None) == QuantizationConfig.from_preset(DEFAULT_PRESET)
    assert resolve_config("w8a8_channel") is not None
    assert resolve_config(QuantizationConfig()) == QuantizationConfig()
    with pytest.raises(ValueError, match=r"preset is 'w9'; it must be one of 'w8a8_shift'"):
        resolve_config("w9")
    with pytest.raises(TypeError, match="pass a QuantizationConfig or a preset's name"):
        resolve_config(8)
