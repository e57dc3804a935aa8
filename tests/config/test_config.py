import ast
import dataclasses
import inspect
import json

import numpy as np
import pytest

from tfptq.config import (
    Calibration,
    MixedPrecision,
    PerBlock,
    PerChannel,
    QuantizationConfig,
    Rounding,
    override,
)


def test_type_checkers_see_all_fields():
    tree = ast.parse(inspect.getsource(QuantizationConfig))
    (init,) = (node for node in ast.walk(tree) if getattr(node, "name", None) == "__init__")
    assert [item.arg for item in init.args.args[1:]] == [field.name for field in dataclasses.fields(QuantizationConfig)]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"equalize": "no"}, "equalize is 'no'; it must be of the type bool"),
        ({"weight_bits": 4.0}, "weight_bits is 4.0; it must be of the type int"),
        ({"weight_bits": 5.5}, "weight_bits is 5.5; it must be one of 2, 3, 4, 5, 6, 8, 16$"),
        ({"target": "mirco"}, r"target is 'mirco'; it must be one of .*; did you mean 'micro'\?"),
        ({"weight_bit": 4}, r"config field is 'weight_bit'; .*; did you mean 'weight_bits'\?"),
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


def test_overrides_apply_in_order_by_pattern():
    config = QuantizationConfig(
        overrides=[override("block_*", weight_bits=4), override("block_2", weight_bits=6, weight_scale="mse")]
    )
    assert [config.for_layer(name).weight_bits for name in ("stem", "block_1", "block_2")] == [8, 4, 6]
    assert config.for_layer("block_2").weight_scale == "mse"
    assert config.for_layer("block_2").overrides == ()


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
        with pytest.raises(
            ValueError, match="weight_bits is .*; it must be (of the type int|one of 2, 3, 4, 5, 6, 8, 16$)"
        ):
            QuantizationConfig(weight_bits=wrong)


def test_configs_are_values():
    config = QuantizationConfig(overrides=[override("stem", weight_bits=4)])
    assert hash(config) == hash(config.replace()) and config == config.replace()
    assert json.loads(config.to_json())["granularity"] == {"type": "PerTensor"}


def test_mixed_precision_does_not_choose_where_an_override_does():
    item = override("a", granularity=PerBlock(2, 4), scaler="integer", weight_bits=4)
    config = QuantizationConfig(PerChannel(), mixed_precision=MixedPrecision((2, 8)), overrides=(item,))
    assert config.for_layer("a").scaler == "integer"
    few = {"granularity": PerBlock(2, 4), "scaler": "integer", "multipliers": (2, 3)}
    with pytest.raises(ValueError, match="layer 'b' .* with 8 bits at least one must be 1 or less"):
        config.replace(overrides=(override("b", **few),)).for_layer("b")


def test_label_tells_what_was_changed_and_equality_is_as_before():
    preset = QuantizationConfig.from_preset("w8a8_layer")
    assert preset.label == preset.replace(input_type=None, target="cpu").label == "w8a8_layer"
    assert preset.replace(input_type="float32").label == "w8a8_layer (changed: input_type)"
    changed = preset.replace(weight_bits=4, overrides=(override("a", skip=True),))
    assert changed.label == "w8a8_layer (changed: weight_bits, overrides)"
    assert QuantizationConfig.from_json(changed.to_json()).label == changed.label
    assert changed.name == "w8a8_layer" and changed.replace(weight_bits=8, overrides=()) == preset
    assert QuantizationConfig(weight_bits=4).label == "w8a8_shift (changed: weight_bits)"
    assert changed.replace(name="mine").label == "mine"
