import pytest

from tfptq.config import (
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    check_overrides,
    override,
    pin_edges,
)


def test_a_pattern_that_matches_nothing_is_an_error():
    config = QuantizationConfig(overrides=(override("stem", weight_bits=4), override("lgits", skip=True)))
    message = r"'lgits' matches no weighted layer; there are: stem, logits; did you mean 'logits'\?"
    with pytest.raises(ValueError, match=message):
        check_overrides(config, ["stem", "logits"])
    check_overrides(config.replace(overrides=config.overrides[:1]), ["stem", "logits"])


@pytest.mark.parametrize("pattern", ["sep", "se?"])
def test_a_pattern_for_a_separable_convolution_is_told_of_its_halves(pattern):
    config = QuantizationConfig(overrides=(override(pattern, weight_bits=4),))
    message = "matches no weighted layer; .* halves: sep_depthwise, sep_pointwise; there are: stem, sep_depthwise, "
    with pytest.raises(ValueError, match=message):
        check_overrides(config, ["stem", "sep_depthwise", "sep_pointwise"])
    with pytest.raises(ValueError, match="matches no weighted layer; there are: depthwise, stem"):
        check_overrides(config, ["depthwise", "stem"])


BLOCKS = QuantizationConfig(PerBlock(4, 8), scaler="integer", weight_bits=4)


def pinned(config, *items, name="first"):
    """Granularity, scaler, width and layout of a layer at an edge."""
    layer = pin_edges(config.replace(overrides=items), [name]).for_layer(name)
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
    config = pin_edges(QuantizationConfig(weight_bits=4), ["dense[1]", "a*", "re:.*"])
    names = ("dense[1]", "a*", "re:.*", "dense1", "ab")
    assert [config.for_layer(name).weight_bits for name in names] == [8, 8, 8, 4, 4]
    check_overrides(config, list(names))


def test_overrides_are_judged_together():
    items = (override("*", granularity=PerChannel(), scaler="float"), override("a", weight_bits=8))
    config = QuantizationConfig.from_preset("w4a8_block").replace(multipliers=(2, 3, 4, 6), overrides=items)
    assert config.for_layer("a").weight_bits == 8 and config.for_layer("a").granularity == PerChannel()
    assert QuantizationConfig.from_json(config.to_json()) == config
    bad = config.replace(overrides=items[1:])
    message = r"layer 'a' gets .* rest of the config: weight_bits=8 \('a'\): multipliers is .* at least one must be 1 "
    with pytest.raises(ValueError, match=message):
        check_overrides(bad, ["a", "b"])
