import pytest

from tfptq.config import (
    MixedPrecision,
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    override,
)


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
