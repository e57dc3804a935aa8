"""Edges pinned, overrides checked, mixed precision and its budget, on whole models."""

import keras
import numpy as np
import pytest
from plain_config import plain_config

import tfptq
from tfptq import MixedPrecision, PerBlock, PerChannel, QuantizationConfig, override
from tfptq.base.progress import Progress
from tfptq.config import check_overrides
from tfptq.layers import DefaultQuantizeConfig, quantize_annotate_layer, quantize_apply
from tfptq.prepare import network
from tfptq.prepare.bits import choose_bits, sensitivity_of_layers
from tfptq.prepare.decisions import pinned_config, settled_config
from tfptq.prepare.layer_weights import weights_of_layers

NAMES = ("a", "b", "c", "d")


def chain(names=NAMES, width=16):
    x = inputs = keras.Input((width,), name="x")
    for name in names:
        x = keras.layers.Dense(width, name=name)(x)
    return keras.Model(inputs, x)


def small_ends(names=NAMES):
    """A chain whose first and last layer hold a twentieth of the weights each."""
    x = inputs = keras.Input((16,), name="x")
    for name, width in zip(names, (16, 64, 64, 4), strict=True):
        x = keras.layers.Dense(width, name=name)(x)
    return keras.Model(inputs, x)


def pinned(config, model):
    return pinned_config(config, weights_of_layers(model))


def settled(config, model):
    return settled_config(config, weights_of_layers(model), sensitivity_of_layers(config, model, ()))


def test_mixed_precision_leaves_the_edges_their_bits():
    config = plain_config(PerChannel(), mixed_precision=MixedPrecision(bits=(2, 4), average_bits=2.5))
    widths = [settled(config, small_ends()).for_layer(name).weight_bits for name in NAMES]
    assert widths[0] == widths[3] == 8 and max(widths[1:3]) <= 4


def test_large_layers_at_the_edges_are_as_all_others():
    """A quarter of the weights each."""
    config = pinned(plain_config(PerChannel(), weight_bits=4), chain())
    assert [config.for_layer(name).weight_bits for name in NAMES] == [4] * 4
    config = pinned(plain_config(PerChannel(), weight_bits=4), small_ends())
    assert [config.for_layer(name).weight_bits for name in NAMES] == [8, 4, 4, 8]


def test_edges_take_part_when_no_width_is_below_theirs():
    config = plain_config(
        PerChannel(), weight_bits=2, edge_bits=4, mixed_precision=MixedPrecision((4, 6, 8), average_bits=6)
    )
    weights = weights_of_layers(chain())
    _, table = choose_bits(pinned_config(config, weights), weights.groups, sensitivity_of_layers(config, chain(), ()))
    assert not any(row.pinned for row in table)


def test_every_input_and_every_head_is_pinned():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    x = keras.layers.Add()([keras.layers.Dense(8, name=name)(each) for name, each in (("l", left), ("r", right))])
    x = keras.layers.Dense(32, name="trunk")(keras.layers.Dense(32, name="root")(x))
    model = keras.Model([left, right], [keras.layers.Dense(2, name=name)(x) for name in ("one", "two")])
    config = pinned(plain_config(PerChannel(), weight_bits=4), model)
    bits = {name: config.for_layer(name).weight_bits for name in ("l", "r", "root", "trunk", "one", "two")}
    assert bits == {"l": 8, "r": 8, "root": 4, "trunk": 4, "one": 8, "two": 8}


@pytest.mark.parametrize("names", [("dense[1]", "b", "c[!x]", "last?"), ("*", "a*", "[b]", "b")])
def test_names_with_the_signs_of_patterns(names):
    config = plain_config(PerChannel(), mixed_precision=MixedPrecision(bits=(2, 4), average_bits=2.5))
    found = settled(config, small_ends(names))
    widths = [found.for_layer(name).weight_bits for name in names]
    assert widths[0] == widths[3] == 8 and max(widths[1:3]) <= 4
    check_overrides(found, list(names))


def test_another_block_size_for_all_leaves_no_edge_in_float():
    blocks = {"granularity": PerBlock(4, 8), "scaler": "integer", "weight_bits": 4, "target": "any"}
    item = override("*", granularity=PerBlock(2, 4))
    config = QuantizationConfig.from_preset("w8a8_layer").replace(**blocks, overrides=[item])
    data = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    report = tfptq.quantize_keras_model(small_ends(), data, config, progress=False).report
    assert [layer.layout for layer in report.layers] == ["int8"] * 4
    assert [layer.granularity for layer in report.layers] == ["channel", *["block 2x4 integer"] * 2, "channel"]
    assert report.preset == "w8a8_layer (changed: granularity, scaler, weight_bits, target, overrides)"


@pytest.mark.parametrize(
    "item, message",
    [
        (override("aa", weight_bits=4), "'aa' matches no weighted layer; there are: a, b, c, d"),
        (
            override("b", scaler="shift", granularity=PerChannel()),
            "layer 'b' gets .* \\('b'\\): scaler='shift' needs PerT",
        ),
    ],
)
def test_overrides_that_fit_no_layer_are_refused_before_the_data_is_read(item, message):
    config = QuantizationConfig.from_preset("w4a8_block").replace(overrides=(item,))
    with pytest.raises(ValueError, match=message):
        network.prepare(chain(), lambda: pytest.fail("the data was read"), config, 0, Progress(False))


@pytest.mark.parametrize("nested", [False, True])
def test_annotations_are_not_passed_over(nested):
    """The way that the message names works."""
    marked = quantize_annotate_layer(keras.layers.Dense(4, name="marked"), DefaultQuantizeConfig(plain_config()))
    inner = keras.Sequential([keras.Input((5,)), marked, keras.layers.Dense(3)], name="inner")
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(inputs), name="outer") if nested else inner
    data = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    message = f"'{model.name}' has 1 annotated layer, the first 'marked'.*export_simulation.*quantize_apply"
    with pytest.raises(ValueError, match=message):
        tfptq.quantize_keras_model(model, data, progress=False)
    report = tfptq.export_simulation(quantize_apply(model), data, progress=False).report
    assert [layer.name for layer in report.layers] == ["marked"]
