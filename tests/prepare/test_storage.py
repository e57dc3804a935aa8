"""Bits that follow the bytes: what a target stores in INT8 anyway has 8 bits; and operators as they are predicted."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config

from tfptq.config import TARGETS, MixedPrecision, PerBlock, PerChannel, override
from tfptq.float_file.build import make_float_file
from tfptq.float_file.kernel import KernelId
from tfptq.float_file.layout_requests import layout_requests
from tfptq.graph import canonicalise
from tfptq.layers import supports, weight_specs
from tfptq.lowering.choose_layout import plan_layout
from tfptq.prepare.storage import (
    group_of,
    group_options,
    groups_of,
    latency,
    latency_budget,
    layer_requests,
    with_bits_of_target,
)

CHANNEL4 = plain_config(PerChannel(), weight_bits=4, edge_bits=None, latency_budget=1000.0)
ALL = ("stem", "deep", "point", "up", "odd", "dense")


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((8, 8, 4), name="x")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="deep")(x)
    x = layers.Conv2D(9, 1, name="point")(x)
    x = layers.Conv2D(6, 1, name="odd")(x)  # an output sums 9 products
    x = layers.Conv2DTranspose(4, 3, strides=2, name="up")(x)
    return keras.Model(inputs, layers.Dense(10, name="dense")(layers.GlobalAveragePooling2D()(x)))


def bits(config, model):
    found = with_bits_of_target(config, groups_of(model))
    return {layer.name: found.for_layer(layer.name).weight_bits for layer in model.layers if supports(layer)}


@pytest.mark.parametrize(
    ("target", "narrow"),
    [
        ("cpu", {"point", "dense"}),  # gathering the small stem would take more bytes than it saves
        ("web", set(ALL)),
        ("micro", {"stem", "deep", "point", "odd"}),
        ("npu", set(ALL)),
        ("any", set(ALL)),
    ],
)
def test_what_lies_in_int8_anyway_has_8_bits(model, target, narrow):
    found = bits(CHANNEL4.replace(target=target), model)
    assert {name for name, width in found.items() if width == 4} == narrow
    assert {name for name, width in found.items() if width == 8} == set(ALL) - narrow


def test_packed_layouts_do_not_pay_in_the_browser(model):
    """A target with such layouts keeps them, within the usual budget, to where hardly anything is computed."""
    packed = replace(TARGETS["web"], name="packed", narrow_int8=False, layouts=TARGETS["cpu"].layouts)
    config = CHANNEL4.replace(target=packed, latency_budget=1.35)
    assert bits(config, model)["stem"] == 8
    found = bits(config.replace(latency_budget=1000.0), model)
    assert {name for name, width in found.items() if width == 4} == {"point", "dense"}


@pytest.mark.parametrize("changes", [{"layout": "speed"}, {"latency_budget": 1.0}])
def test_gathered_convolutions_are_slower_than_int8(model, changes):
    """XNNPACK's products of matrices are not, within the error of the measurement."""
    found = bits(CHANNEL4.replace(**changes), model)
    assert found["stem"] == found["deep"] == 8


def test_a_budget_of_latency_is_spent_on_the_most_bytes():
    """Of two convolutions alike but for their channels, the one with more bytes for its time is gathered."""
    inputs = x = keras.Input((8, 8, 16), name="x")
    for name, filters in (("small", 16), ("large", 64), ("wide", 64)):
        x = layers.Conv2D(filters, 3, padding="same", name=name)(x)
    model = keras.Model(inputs, x)
    narrow = []
    for budget in (1.0, 1.25, 1.5, 3.0, 100.0):
        config = CHANNEL4.replace(latency_budget=budget)
        found = with_bits_of_target(config, groups_of(model))
        chosen = {layer.name: found.for_layer(layer.name).weight_bits for layer in model.layers[1:]}
        used = sum(
            next(it.latency for it in group_options(group_of(layer), config, {4, 8}) if it.bits == chosen[layer.name])
            for layer in model.layers[1:]
        )
        assert used <= latency_budget(config, groups_of(model)) * (1 + 1e-6)
        narrow.append([name for name, width in chosen.items() if width == 4])
    assert narrow[0] == [] and len(narrow[-1]) == 3
    assert [len(names) for names in narrow] == sorted(len(names) for names in narrow)
    assert "small" not in narrow[2]


def test_overrides_of_the_user_win(model):
    config = CHANNEL4.replace(
        overrides=(override("deep", weight_bits=4), override("stem", weight_bits=2), override("point", layout="int4")),
        latency_budget=1.0,
    )
    found = bits(config, model)
    assert found["deep"] == 4 and found["stem"] == 2 and found["point"] == 4
    assert bits(CHANNEL4.replace(layout="int8"), model) == dict.fromkeys(found, 4)
    assert bits(CHANNEL4.replace(overrides=(override("deep", skip=True),)), model)["deep"] == 4  # and it is not used


@pytest.mark.parametrize("width", [5, 6])
def test_widths_that_lie_in_int8_become_8(model, width):
    assert set(bits(CHANNEL4.replace(weight_bits=width), model).values()) == {8}


def test_few_bits_lie_in_the_smallest_layout(model):
    dense = model.get_layer("dense")
    found = {it.bits: it.bytes - 40 for it in group_options(group_of(dense), CHANNEL4, {2, 3, 4, 6, 8})}
    assert found == {2: 10, 3: 20, 4: 20, 8: 40}


def test_blocks_that_no_packed_layout_is_sure_to_hold_become_8_bits_per_channel(model):
    for scaler in ("float", "integer"):
        config = CHANNEL4.replace(granularity=PerBlock(2, 2), scaler=scaler)
        found = with_bits_of_target(config, groups_of(model))
        dense = found.for_layer("dense")
        assert (dense.weight_bits, dense.granularity) == (8, PerChannel())


def test_16_bit_activations_take_int8_only(model):
    assert set(bits(CHANNEL4.replace(activation_bits=16), model).values()) == {8}


def test_a_model_of_8_bits_and_one_without_narrow_layers_stay(model):
    config = plain_config(PerChannel())
    assert with_bits_of_target(config, groups_of(model)) == config
    inputs = keras.Input((8, 8, 4))
    only = keras.Model(inputs, layers.DepthwiseConv2D(3, name="deep")(inputs))
    assert bits(CHANNEL4, only) == {"deep": 8}
    none = keras.Model(inputs, layers.ReLU()(inputs))
    assert with_bits_of_target(CHANNEL4, groups_of(none)) == CHANNEL4


@pytest.mark.parametrize("settings", [{}, {"average_bits": 4.0}, {"ratio": 0.6}])
def test_mixed_precision_chooses_among_layers_that_can_be_packed(model, settings):
    config = plain_config(
        PerChannel(), edge_bits=None, mixed_precision=MixedPrecision(bits=(2, 4, 8), **settings), layout="speed"
    )
    found = with_bits_of_target(config, groups_of(model))
    pinned = {name for name in ALL if found.overrides_field(name, "weight_bits")}
    # With real bytes, the solver keeps the budget of latency; without them, what is too slow is pinned before.
    assert {"deep", "up", "odd"} <= pinned and "dense" not in pinned
    assert ("stem" in pinned) == ("ratio" not in settings)


# Operators as they are predicted.

LAYERS = {
    "dense of rank 2": (lambda: layers.Dense(6), (12,)),
    "dense of rank 3": (lambda: layers.Dense(6), (5, 12)),
    "dense of rank 4": (lambda: layers.Dense(6), (3, 5, 12)),
    "dense, open length": (lambda: layers.Dense(6), (None, 12)),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 6), bias_axes="de"), (5, 4)),
    "conv1d": (lambda: layers.Conv1D(6, 3, padding="same"), (9, 4)),
    "conv1d, strided": (lambda: layers.Conv1D(6, 3, strides=2), (9, 4)),
    "conv1d, causal": (lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2), (9, 4)),
    "conv1d, dilated": (lambda: layers.Conv1D(6, 3, dilation_rate=2), (9, 4)),
    "conv2d": (lambda: layers.Conv2D(6, 3), (9, 8, 4)),
    "conv2d, strided": (lambda: layers.Conv2D(6, 3, strides=2, padding="same"), (9, 8, 4)),
    "conv2d, uneven": (lambda: layers.Conv2D(6, (2, 3), strides=(1, 2), padding="same"), (9, 8, 4)),
    "conv2d, dilated": (lambda: layers.Conv2D(6, 3, dilation_rate=(1, 2), padding="same"), (9, 8, 4)),
    "conv2d, grouped": (lambda: layers.Conv2D(6, 3, groups=2), (9, 8, 4)),
    "conv2d, open sizes": (lambda: layers.Conv2D(6, 3), (None, None, 4)),
    "pointwise": (lambda: layers.Conv2D(6, 1), (9, 8, 4)),
    "pointwise, strided": (lambda: layers.Conv2D(6, 1, strides=2), (9, 8, 4)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (9, 8, 4)),
    "depthwise, strided": (lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"), (9, 8, 4)),
    "depthwise, dilated": (lambda: layers.DepthwiseConv2D(3, dilation_rate=2), (9, 8, 4)),
    "depthwise, multiplied": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 8, 4)),
    "depthwise, one channel": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=4), (9, 8, 1)),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3), (9, 4)),
    "separable": (lambda: layers.SeparableConv2D(6, 3), (9, 8, 4)),
    "transposed": (lambda: layers.Conv2DTranspose(6, 3, strides=2), (5, 4, 4)),
    "transposed, same": (lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (5, 4, 4)),
    "transposed1d": (lambda: layers.Conv1DTranspose(6, 3, strides=2), (5, 4)),
}


def predicted_and_made(model):
    """For each kernel: its layer, the requests that Keras tells, and those of the float file."""
    model = canonicalise(model)
    specs = {
        KernelId(layer.name, spec.name): (layer, spec)
        for layer in model.layers
        if supports(layer)
        for spec in weight_specs(layer)
    }
    float_file = make_float_file(model, {key: spec.values() for key, (_, spec) in specs.items()})
    found = {kernel.id: layout_requests(CHANNEL4, float_file.model, kernel) for kernel in float_file.kernels}
    assert set(found) == set(specs)
    return [(layer, layer_requests(layer, spec, CHANNEL4, 4), found[key]) for key, (layer, spec) in specs.items()]


@pytest.mark.parametrize("kind", LAYERS)
def test_the_operator_is_the_one_that_the_converter_makes(kind):
    layer, shape = LAYERS[kind]
    for found, predicted, made in predicted_and_made(keras.Sequential([keras.Input(shape, name="x"), layer()])):
        assert predicted == made
        for target in ("cpu", "micro"):
            config = CHANNEL4.replace(target=target)
            plan = plan_layout(found.name, config, made)
            packed = [it.bytes for it in group_options(group_of(found), config, {4})]
            assert bool(packed) == (plan.candidates[0].code_bits(4) == 4)


def test_every_call_of_a_layer_counts():
    inputs = keras.Input((8, 8, 4), name="x")
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    small = shared(layers.MaxPooling2D()(inputs))
    model = keras.Model(inputs, [shared(inputs), small])
    ((layer, predicted, made),) = predicted_and_made(model)
    assert set(predicted) == set(made) and len(predicted) == 2
    inputs = keras.Input((8, 8, 4), name="x")
    once = keras.Model(inputs, layers.Conv2D(4, 3, padding="same", name="shared")(inputs)).get_layer("shared")
    assert latency(group_of(layer), CHANNEL4) > latency(group_of(once), CHANNEL4)
    (both,), (one,) = (group_options(group_of(each), CHANNEL4, {4}) for each in (layer, once))
    assert one.bytes < both.bytes < 2 * one.bytes  # one kernel, gathered for twice


def test_projections_of_attention_are_products():
    inputs = keras.Input((5, 16), name="x")
    other = keras.Input((7, 16), name="y")
    model = keras.Model([inputs, other], layers.MultiHeadAttention(2, 8, name="attention")(inputs, other))
    rows = predicted_and_made(model)
    assert len(rows) == 4
    for _, (predicted,), (made,) in rows:
        assert (predicted.operator, predicted.view_shape) == (made.operator, made.view_shape)
    (layer,) = {row[0] for row in rows}
    (option,) = group_options(group_of(layer), CHANNEL4, {4})
    assert option.bytes == 4 * (16 * 16 / 2 + 4 * 16) and np.isfinite(option.latency)
