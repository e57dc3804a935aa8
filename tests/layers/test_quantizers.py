import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_config import plain_config

from tfptq.config import PerBlock, PerChannel, PerTensor
from tfptq.core.affine import WEIGHT_BITS, ActivationGrid, activation_grid, weight_code_range
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.layers import ActivationQuantizer, WeightQuantizer

KINDS = {
    "layer": plain_config(PerTensor()),
    "channel": plain_config(PerChannel()),
    "shift": plain_config(PerTensor(), scaler="shift"),
    "block_float": plain_config(PerBlock(4, 3)),
    "block_integer": plain_config(PerBlock(4, 3), scaler="integer", weight_bits=4),
    "block_shift": plain_config(PerBlock(2, 3), scaler="shift", weight_bits=4),
}


def owner():
    return keras.layers.Layer()


def weight_quantizer(config, view=None):
    return WeightQuantizer(config.weight_bits, config.granularity, config.scaler, view)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    bits=st.sampled_from(WEIGHT_BITS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7)),
    seed=st.integers(0, 2**32 - 1),
)
def test_fake_quantized_kernel_equals_the_numpy_codes(kind, bits, shape, seed):
    config = KINDS[kind].replace(weight_bits=min(bits, 4) if kind == "block_integer" else bits)
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(0, 1, shape) * np.exp2(rng.integers(-12, 4, shape[2]))).astype(np.float32)
    quantizer = weight_quantizer(config)
    weights = quantizer.build(shape, "kernel", owner())
    view = quantizer.view_of(shape)
    quantizer.assign(config.scales_of(view.to_view(kernel)), weights, shape)
    found = quantizer.quantized_weight(kernel, weights)
    result = keras.ops.convert_to_numpy(quantizer(keras.ops.convert_to_tensor(kernel), False, weights))
    np.testing.assert_array_equal(result, view.from_view(found.dequantize()))


@settings(max_examples=60)
@given(kind=st.sampled_from(sorted(KINDS)), bits=st.sampled_from(WEIGHT_BITS), seed=st.integers(0, 2**32 - 1))
def test_codes_survive_being_dequantized(kind, bits, seed):
    bits = min(bits, 4) if kind == "block_integer" else bits
    config, shape = KINDS[kind].replace(weight_bits=bits), (3, 3, 4, 6)
    rng = np.random.default_rng(seed)
    low, high = weight_code_range(bits)
    quantizer = weight_quantizer(config)
    weights = quantizer.build(shape, "kernel", owner())
    codes = rng.integers(low, high + 1, (6, 4, 9)).astype(np.int8)
    scales = random_scales(rng, kind)
    quantizer.assign(scales, weights, shape)
    given_weight = QuantizedWeight(codes, scales, bits)
    found = quantizer.quantized_weight(quantizer.view_of(shape).from_view(given_weight.dequantize()), weights)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.scales.values(), scales.values())
    assert (found.scales.kind, found.scales.block_shape, found.bits) == (scales.kind, scales.block_shape, bits)


def random_scales(rng, kind):
    if kind == "shift":
        base = rng.uniform(1e-6, 1e3, 1).astype(np.float32)
        return BlockScales("shift", base, -rng.integers(0, 16, (6, 1)).astype(np.int8), (1, 4))
    if kind.startswith("block"):  # Ragged: 6 outputs and 4 inputs.
        block = (2, 3) if kind == "block_shift" else (4, 3)
        grid = (-(-6 // block[0]), 2)
        base = rng.uniform(1e-6, 1e3, grid[0]).astype(np.float32)
        if kind == "block_float":
            return BlockScales("float", np.ones(1, np.float32), rng.uniform(1e-6, 1e3, grid).astype(np.float32), block)
        low, high = (1, 17) if kind == "block_integer" else (-15, 16)
        return BlockScales(kind.removeprefix("block_"), base, rng.integers(low, high, grid).astype(np.int8), block)
    rows, block = (1, (6, 4)) if kind == "layer" else (6, (1, 4))
    return BlockScales("float", np.ones(1, np.float32), rng.uniform(1e-6, 1e3, (rows, 1)).astype(np.float32), block)


@pytest.mark.parametrize("shift", range(-15, 16))
def test_shifts_are_exact_powers_of_two(shift):
    quantizer = weight_quantizer(KINDS["shift"])
    weights = quantizer.build((1, 2), "kernel", owner())
    scales = BlockScales("shift", np.float32([0.3]), np.int8([[shift], [0]]), (1, 1))
    quantizer.assign(scales, weights, (1, 2))
    kernel = np.float32([[0.3 * 2.0**shift, 0.3]])
    np.testing.assert_array_equal(quantizer(keras.ops.convert_to_tensor(kernel), False, weights), kernel)


def test_scales_go_to_the_axes_of_the_view():
    view = WeightView((2, 3, 4), (1,), (2,), (0,))
    quantizer = weight_quantizer(KINDS["channel"], view)
    weights = quantizer.build((2, 3, 4), "kernel", owner())
    quantizer.assign(
        quantizer.config.scales_of(np.float32([[[127.0]], [[12.7]], [[1.27]]]) * np.ones((3, 4, 2))),
        weights,
        (2, 3, 4),
    )
    result = keras.ops.convert_to_numpy(quantizer(keras.ops.full((2, 3, 4), 0.333), False, weights))
    expected = np.float32([0.0, 0.3, 0.33])[None, :, None] * np.ones((2, 3, 4))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_weight_without_scales_passes_through_and_has_no_codes():
    quantizer = weight_quantizer(KINDS["layer"])
    weights = quantizer.build((4, 3), "kernel", owner())
    kernel = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(quantizer(keras.ops.convert_to_tensor(kernel), False, weights), kernel)
    assert quantizer.scales(weights, (4, 3)) is None
    with pytest.raises(ValueError, match="no scales yet"):
        quantizer.quantized_weight(kernel, weights)


@pytest.mark.parametrize(
    "scales",
    [
        BlockScales("float", np.ones(1, np.float32), np.ones((3, 1), np.float32), (1, 4)),
        BlockScales("shift", np.ones(1, np.float32), np.zeros((1, 1), np.int8), (3, 4)),
        BlockScales("float", np.ones(1, np.float32), np.ones((1, 1), np.float32), (1, 4)),
    ],
)
def test_scales_of_another_kind_or_shape_are_refused(scales):
    quantizer = weight_quantizer(KINDS["layer"])
    weights = quantizer.build((4, 3), "kernel", owner())
    with pytest.raises(ValueError, match="fit the scales with the layer's own config"):
        quantizer.assign(scales, weights, (4, 3))


def test_kernel_of_another_shape_than_the_view_is_refused():
    quantizer = weight_quantizer(KINDS["layer"], WeightView((2, 3), (1,), (0,)))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        quantizer.build((3, 2), "kernel", owner())


@pytest.mark.parametrize("arguments", [(7,), (8, PerChannel(), "shift"), (8, "channel")])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="weight_bits|scaler|granularity"):
        WeightQuantizer(*arguments)


@pytest.mark.parametrize("view", [None, WeightView((3, 2), (0,), (1,))])
def test_weight_quantizer_config_survives_json(view):
    quantizer = WeightQuantizer(4, PerTensor(), "shift", view)
    restored = WeightQuantizer.from_config(json.loads(json.dumps(quantizer.get_config())))
    assert (restored.config, restored.view) == (quantizer.config, quantizer.view)


def test_activation_grid_is_stored_and_used():
    quantizer = ActivationQuantizer(8)
    weights = quantizer.build((None, 4), "input", owner())
    values = np.linspace(-3, 9, 101, dtype=np.float32)
    np.testing.assert_array_equal(quantizer(keras.ops.convert_to_tensor(values), False, weights), values)
    assert quantizer.grid(weights) is None
    grid = activation_grid(-1.0, 6.0)
    quantizer.assign(grid, weights)
    assert quantizer.grid(weights) == grid
    result = quantizer(keras.ops.convert_to_tensor(values), False, weights)
    np.testing.assert_array_equal(result, grid.dequantize(grid.quantize(values)))


@pytest.mark.parametrize("grid", [ActivationGrid(0.1, 0, 4), ActivationGrid(0.0, 0, 8), ActivationGrid(np.nan, 0, 8)])
def test_grids_that_do_not_fit_are_refused(grid):
    quantizer = ActivationQuantizer(8)
    with pytest.raises(ValueError, match="does not fit"):
        quantizer.assign(grid, quantizer.build((None,), "input", owner()))


def test_activation_quantizer_config_and_bits():
    assert ActivationQuantizer.from_config(ActivationQuantizer(16).get_config()).bits == 16
    with pytest.raises(ValueError, match="activation_bits"):
        ActivationQuantizer(3)
