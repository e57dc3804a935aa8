import ast
import dataclasses
import inspect
import json

import numpy as np
import pytest

from tfptq.config import (
    DEFAULT_PRESET,
    PRESETS,
    Calibration,
    LayerOverride,
    MixedPrecision,
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    Rounding,
    override,
    resolve_config,
)
from tfptq.core.rounding import NoOptions
from tfptq.core.rounding.methods.adaround import AdaRoundOptions
from tfptq.core.rounding.methods.attention import AttentionRoundOptions


@pytest.mark.parametrize("name", PRESETS)
def test_presets_know_their_name_and_survive_json(name):
    config = QuantizationConfig.from_preset(name)
    assert config.name == name
    assert QuantizationConfig.from_json(config.to_json()) == config


def test_json_round_trip_of_everything():
    config = QuantizationConfig(
        PerChannel(),
        weight_bits=4,
        weight_scale="mse",
        calibration=Calibration("percentile", percentile=99.9, bins=512),
        bias_correction=False,
        overrides=(
            override("stem", weight_bits=8, granularity=PerTensor(), scaler="shift"),
            override("b*", skip=True, multipliers=(1, 2), rounding=Rounding("attention")),
            override("c", granularity=PerBlock(2, 4), scaler="integer"),
        ),
        multipliers=(2, 3, 4, 6),
        input_type="int8",
        output_type="uint8",
    )
    assert QuantizationConfig.from_json(config.to_json()) == config
    assert QuantizationConfig.from_json(config.to_json(indent=None)) == config


def test_type_checkers_see_all_fields():
    tree = ast.parse(inspect.getsource(QuantizationConfig))
    (init,) = (node for node in ast.walk(tree) if getattr(node, "name", None) == "__init__")
    assert [item.arg for item in init.args.args[1:]] == [field.name for field in dataclasses.fields(QuantizationConfig)]


@pytest.mark.parametrize("name", PRESETS)
def test_compact_json_leaves_defaults_out(name):
    config = QuantizationConfig.from_preset(name)
    text = config.to_compact_json()
    assert QuantizationConfig.from_json(text) == config
    assert len(text) < 250
    assert not {"skip", "overrides", "input_type", "metadata"} & json.loads(text).keys()


def test_compact_json_says_what_differs():
    config = QuantizationConfig(
        PerBlock(2, 4),
        "integer",
        4,
        rounding=Rounding("attention"),
        calibration=Calibration("percentile", percentile=99.9),
        mixed_precision=MixedPrecision(average_bits=4.0),
        overrides=(override("stem", weight_bits=8, granularity=PerTensor(), scaler="float", rounding=Rounding()),),
        metadata="none",
    )
    text = config.to_compact_json()
    assert QuantizationConfig.from_json(text) == config
    assert json.loads(text) == {
        "granularity": {"type": "PerBlock", "output_channels": 2, "input_channels": 4},
        "scaler": "integer",
        "weight_bits": 4,
        "rounding": "attention",
        "calibration": {"method": "percentile", "percentile": 99.9},
        "mixed_precision": {"average_bits": 4.0},
        "overrides": [
            {
                "pattern": "stem",
                "changes": {"granularity": {"type": "PerTensor"}, "rounding": {}, "scaler": "float", "weight_bits": 8},
            }
        ],
        "metadata": "none",
    }
    assert QuantizationConfig().to_compact_json() == "{}"


#: Fields of configs in files that leave their defaults out: a default that changes changes what they say.
DEFAULTS = {
    "granularity": {"type": "PerTensor"}, "scaler": "float", "weight_bits": 8, "activation_bits": 8,
    "activation_aware": False, "weight_scale": "max_abs", "statistics_samples": None, "equalize": False,
    "rotate": False, "reorder": False, "mixed_precision": None, "edge_bits": 8, "layout": "size", "multipliers": None,
    "calibration": {"method": "mse", "percentile": 99.99, "bins": 2048}, "bias_correction": True, "skip": False,
    "overrides": [], "input_type": None, "output_type": None, "metadata": "full", "name": "custom",
    "target": "cpu", "latency_budget": 1.35,
    "rounding": {
        "method": "nearest", "steps": 500, "tau": 0.5, "learning_rate": None, "damping": 0.2, "most_inputs": None,
    },
}  # fmt: skip


def test_defaults_stay():
    """A new field gets a line here; the others are what files of earlier releases rely on."""
    assert QuantizationConfig().to_dict() == DEFAULTS


def test_json_may_leave_fields_out():
    assert QuantizationConfig.from_json("{}") == QuantizationConfig()
    assert QuantizationConfig.from_json('{"weight_bits": 4}').weight_bits == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "it is not JSON"),
        ("[]", "not a JSON object"),
        ('{"weight_bit": 8}', "config field is 'weight_bit'"),
        ('{"weight_bits": 7}', "weight_bits is 7"),
        ('{"granularity": {"type": "PerPlanet"}}', "granularity.type is 'PerPlanet'"),
        ('{"granularity": {"type": "PerTensor", "size": 1}}', "unexpected shape"),
        ('{"granularity": {}}', "unexpected shape"),
        ('{"multipliers": 3}', "multipliers is 3; give a tuple such as"),
        ('{"multipliers": []}', "multipliers is \\[\\]; give a tuple such as"),
        ('{"multipliers": [2, 17]}', "multipliers is 17; it must be one of 1, 2"),
        (
            '{"granularity": {"type": "PerBlock", "input_blocks": 4}, "scaler": "integer", "weight_bits": 4, '
            '"multipliers": [16]}',
            "with 4 bits at least one must be 15 or less",
        ),
        ('{"multipliers": [2.5]}', "multipliers is 2.5; it must be one of 1, 2"),
        (
            '{"granularity": "PerChannel"}',
            'granularity has an unexpected shape: .PerChannel.; write {"type": "PerChannel',
        ),
        ('{"granularity": {"type": ["PerChannel"]}}', "granularity.type is"),
        ('{"calibration": {"metod": "mse"}}', "calibration has an unexpected shape: Calibration has no 'metod'"),
        ('{"calibration": 3}', "calibration is 3; it must be of the type Calibration"),
        ('{"mixed_precision": {"bits": []}}', r"mixed_precision.bits is \(\); give at least one of 2, 3"),
        ('{"mixed_precision": [4]}', r"mixed_precision is \[4\]; it must be of the type MixedPrecision or None"),
        ('{"overrides": {"a": 4}}', "overrides has an unexpected shape: {'a': 4}; write a list"),
        ('{"overrides": ["a"]}', r"overrides\[0\] has an unexpected shape: 'a'; write"),
        ('{"overrides": [{"pattern": "a"}]}', "unexpected shape"),
        ('{"overrides": [{"pattern": 1, "changes": {}}]}', "unexpected shape"),
        (
            '{"overrides": [{"pattern": "a", "changes": {"pattern": "b"}}]}',
            "field of the override for 'a' is 'pattern'",
        ),
        ('{"overrides": [{"pattern": "a", "changes": {"input_type": "int8"}}]}', "field of the override for 'a'"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig.from_json(text)


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


@pytest.mark.parametrize("granularity", [PerBlock(4, 8), PerBlock(input_blocks=4)])
def test_blocks_survive_json(granularity):
    config = QuantizationConfig(
        granularity, "integer", 4, reorder=True, overrides=(override("a", granularity=PerBlock(input_blocks=2)),)
    )
    assert QuantizationConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "sides",
    [{}, {"output_channels": 3}, {"input_channels": 3}, {"input_blocks": 2, "output_channels": 1}, {"input_blocks": 0}],
)
def test_blocks_need_both_sides_or_a_number(sides):
    with pytest.raises(ValueError, match="PerBlock"):
        PerBlock(**sides)


BLOCKS = QuantizationConfig(PerBlock(4, 8), scaler="integer", weight_bits=4)


def pinned(config, *items, name="first"):
    """Granularity, scaler, width and layout of a layer at an edge."""
    layer = config.replace(overrides=items).with_pinned_edges([name]).for_layer(name)
    return layer.granularity, layer.scaler, layer.weight_bits, layer.layout


@pytest.mark.parametrize(
    "items, expected",
    [
        ((), (PerChannel(), "float", 8, "size")),
        ([override("*", granularity=PerBlock(2, 4))], (PerChannel(), "float", 8, "size")),
        ([override("f*", layout="int4")], (PerChannel(), "float", 8, "int8")),
        ([override("first", weight_bits=8)], (PerChannel(), "float", 8, "size")),
        ([override("first", weight_bits=8, scaler="float")], (PerChannel(), "float", 8, "size")),
        ([override("first", scaler="shift")], (PerBlock(4, 8), "shift", 8, "size")),
        ([override("first", granularity=PerBlock(2, 4), scaler="float")], (PerBlock(2, 4), "float", 8, "size")),
        ([override("first", granularity=PerTensor(), scaler="shift")], (PerTensor(), "shift", 8, "size")),
        ([override("first", weight_bits=4)], (PerBlock(4, 8), "integer", 4, "size")),
        ([override("first", granularity=PerBlock(2, 4))], (PerBlock(2, 4), "integer", 8, "size")),
        ([override("*", weight_bits=3, granularity=PerBlock(2, 4))], (PerBlock(2, 4), "integer", 3, "size")),
    ],
)
def test_edges_of_blocks_have_channels_unless_an_override_names_them(items, expected):
    assert pinned(BLOCKS, *items) == expected


def test_pins_do_not_reach_layers_whose_names_match_theirs_as_patterns():
    config = QuantizationConfig(weight_bits=4).with_pinned_edges(["dense[1]", "a*"])
    names = ("dense[1]", "a*", "dense1", "ab")
    assert [config.for_layer(name).weight_bits for name in names] == [8, 8, 4, 4]
    config.check_overrides(list(names))


def test_overrides_are_judged_together():
    items = (override("*", granularity=PerChannel(), scaler="float"), override("a", weight_bits=8))
    config = QuantizationConfig.from_preset("w4a8_block").replace(multipliers=(2, 3, 4, 6), overrides=items)
    assert config.for_layer("a").weight_bits == 8 and config.for_layer("a").granularity == PerChannel()
    assert QuantizationConfig.from_json(config.to_json()) == config
    bad = config.replace(overrides=items[1:])
    message = r"layer 'a' gets .* rest of the config: weight_bits=8 \('a'\): multipliers is .* at least one must be 1 "
    with pytest.raises(ValueError, match=message):
        bad.check_overrides(["a", "b"])


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
    assert QuantizationConfig(weight_bits=4).label == "custom"
    assert changed.replace(name="mine").label == "mine"
