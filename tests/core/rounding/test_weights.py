"""Rounding methods: never worse than nearest, near the optimum where that can be known, exact invariances."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import BlockScales, block_maxima, float_scales, quantize_nearest
from tfptq.core.rounding import ROUNDING_METHODS, round_weight
from tfptq.core.rounding.methods.adaround import AdaRoundOptions
from tfptq.core.rounding.methods.attention import AttentionRoundOptions, best_iterate
from tfptq.core.rounding.methods.coordinate import coordinate_codes, descend, sequential_codes
from tfptq.core.rounding.problem import rounding_problem
from tfptq.core.statistics import CentredStatistics, convolution_statistics, dense_statistics
from tfptq.core.windows import Window

LEARNED = [name for name, method in ROUNDING_METHODS.items() if method.learns]
OPTIONS = {"attention": AttentionRoundOptions(steps=60), "adaround": AdaRoundOptions(steps=200)}


def _correlated_layer(outputs, inputs, seed=0, samples=400):
    """Weights ``[O, I, 1]`` and statistics of a layer whose inputs are strongly correlated, by three factors."""
    random = np.random.default_rng(seed)
    few = random.normal(size=(samples, 3)) @ random.normal(size=(3, inputs))
    x = (few + 0.2 * random.normal(size=(samples, inputs))).astype(np.float32)
    weight = random.normal(size=(outputs, inputs))
    return weight[:, :, None], dense_statistics(x, x @ weight.T.astype(np.float32)).centred()


def _channel_scales(view, bits):
    return float_scales(block_maxima(view, (1, view.shape[1])) / (2 ** (bits - 1) - 1), (1, view.shape[1]))


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_beats_nearest_clearly_on_correlated_inputs(method, bits):
    view, statistics = _correlated_layer(12, 24)
    scales = _channel_scales(view, bits)
    nearest = statistics.output_error(quantize_nearest(view, scales, bits).dequantize())
    learned = round_weight(view, scales, bits, statistics, method, OPTIONS.get(method))
    error = statistics.output_error(learned.dequantize())
    low, high = weight_code_range(bits)
    assert low <= learned.codes.min() and learned.codes.max() <= high
    assert error.sum() < 0.6 * nearest.sum()


@pytest.mark.parametrize("method", [*LEARNED, "nearest"])
def test_symmetric_codes(method):
    """Learned for a grid without its least code, they are better than codes that are cut off afterwards."""
    view, statistics = _correlated_layer(12, 24)
    scales = _channel_scales(view, 3).scaled(np.full(12, 0.7))
    found = round_weight(view, scales, 3, statistics, method, OPTIONS.get(method), symmetric=True)
    free = round_weight(view, scales, 3, statistics, method, OPTIONS.get(method))
    assert found.codes.min() == -3 and free.codes.min() == -4
    cut = dataclasses.replace(free, codes=np.maximum(free.codes, -3))
    errors = [statistics.output_error(each.dequantize()).sum() for each in (found, cut)]
    assert errors[0] <= errors[1] * (1 if method == "nearest" else 0.9)


def test_nearest_is_nearest():
    view, statistics = _correlated_layer(5, 7)
    scales = _channel_scales(view, 4)
    rounded = round_weight(view, scales, 4, statistics, "nearest")
    np.testing.assert_array_equal(rounded.codes, quantize_nearest(view, scales, 4).codes)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([2, 3, 4, 8]), method=st.sampled_from(LEARNED))
def test_no_row_is_worse_than_nearest(seed, bits, method):
    view, statistics = _correlated_layer(4, 6, seed, samples=5)
    scales = _channel_scales(view, bits)
    options = {"attention": AttentionRoundOptions(steps=3)}.get(method, OPTIONS.get(method))
    problem = rounding_problem(view, scales, bits, statistics)
    rounded = round_weight(view, scales, bits, statistics, method, options)
    codes = rounded.codes.reshape(problem.weight.shape)
    assert (problem.objective(codes) <= problem.objective(problem.nearest()) + 1e-12).all()


def test_coordinate_rounding_is_near_the_optimum():
    view, statistics = _correlated_layer(20, 6, seed=3)
    problem = rounding_problem(view, _channel_scales(view, 2), 2, statistics)
    every = np.array(list(itertools.product((-2, -1, 0, 1), repeat=6)))
    optimum = np.min([problem.objective(np.broadcast_to(codes, (1, 20, 6))) for codes in every], axis=0)
    ours = problem.objective(coordinate_codes(problem))
    nearest = problem.objective(problem.nearest())
    assert (ours >= optimum - 1e-9).all()
    assert (ours - optimum).sum() < 0.1 * (nearest - optimum).sum()


def test_descent_never_rises_and_blocks_change_nothing(monkeypatch):
    view, statistics = _correlated_layer(6, 40)
    problem = rounding_problem(view, _channel_scales(view, 3), 3, statistics)
    codes = [problem.nearest()]
    for _ in range(4):
        codes.append(descend(problem, codes[-1], 1))
    objectives = [problem.objective(step).sum() for step in codes]
    assert objectives == sorted(objectives, reverse=True)
    wide, sequential = coordinate_codes(problem), sequential_codes(problem)
    monkeypatch.setattr("tfptq.core.rounding.methods.coordinate.BLOCK", 7)
    np.testing.assert_array_equal(coordinate_codes(problem), wide)
    np.testing.assert_array_equal(sequential_codes(problem), sequential)


@pytest.mark.parametrize("method", LEARNED)
def test_depthwise_channels_are_separate_problems(method):
    random = np.random.default_rng(4)
    x = random.normal(size=(4, 8, 8, 3)).astype(np.float32).cumsum(axis=1)
    z = random.normal(size=(4, 6, 6, 3)).astype(np.float32) + x[:, 1:-1, 1:-1]
    view = random.normal(size=(3, 1, 9))
    scales = _channel_scales(view, 4)
    whole = convolution_statistics(x, z, Window((3, 3), groups=3)).centred()
    together = round_weight(view, scales, 4, whole, method, OPTIONS.get(method))
    for c in range(3):
        alone = convolution_statistics(x[..., [c]], z[..., [c]], Window((3, 3))).centred()
        scale = float_scales(scales.values()[[c]], (1, 1))
        single = round_weight(view[[c]], scale, 4, alone, method, OPTIONS.get(method))
        np.testing.assert_allclose(single.codes[0], together.codes[c], atol=0 if method == "coordinate" else 1)


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("kind", ["channels", "float blocks", "wes"])
def test_multiples_of_the_scales_are_never_worse_and_often_better(method, kind):
    view, statistics = _correlated_layer(6, 9)
    shape = {"channels": (1, 9), "float blocks": (2, 3), "wes": (1, 9)}[kind]
    scales = float_scales(block_maxima(view, shape) / 3, shape)
    if kind == "wes":
        scales = BlockScales("shift", np.float32([np.abs(view).max() / 3]), np.zeros((6, 1), np.int8), shape)
    plain = round_weight(view, scales, 3, statistics, "coordinate", damping=0.0)
    found = round_weight(
        view, scales, 3, statistics, method, OPTIONS.get(method), damping=0.0, gains=np.linspace(0.7, 1.2, 11)
    )
    rows = {"channels": 6, "float blocks": 3, "wes": 1}[kind]
    before, after = (
        statistics.output_error(item.dequantize()).reshape(rows, -1).sum(axis=1) for item in (plain, found)
    )
    assert (after <= before * (1 + 1e-6)).all() and after.sum() < 0.95 * before.sum()
    assert (found.scales.kind, found.scales.block_shape) == (scales.kind, scales.block_shape)
    np.testing.assert_array_equal(found.scales.factors == 0, scales.factors == 0)


@pytest.mark.parametrize("coarse", [0.5, 1.0, 3.0])
def test_scales_stay_positive_whatever_multiples_are_far_apart(coarse):
    view, statistics = _correlated_layer(24, 9)
    scales = _channel_scales(view, 3).scaled(np.full(24, coarse))
    found = round_weight(view, scales, 3, statistics, "coordinate", damping=0.0, gains=(0.1, 2.0))
    assert (found.scales.values() > 0.0).all()
    with pytest.raises(ValueError, match="gains has -1.0; multiples of scales must be positive"):
        round_weight(view, scales, 3, statistics, "coordinate", gains=(-1.0, 1.0))


def test_multiples_between_the_given_ones_are_tried_where_these_are_best():
    view, statistics = _correlated_layer(24, 9)
    scales, gains = _channel_scales(view, 3), np.linspace(0.7, 1.2, 6)
    found = round_weight(view, scales, 3, statistics, "coordinate", damping=0.0, gains=gains)
    multiples = found.scales.values() / scales.values()
    distances = np.abs(multiples - gains).min(axis=1)
    assert (distances < 1e-6).any() and (distances > 0.02).any()
    singly = [  # no spacing, so that nothing lies between
        round_weight(view, scales.scaled(np.full(24, gain)), 3, statistics, "coordinate", damping=0.0) for gain in gains
    ]
    least = np.min([statistics.output_error(item.dequantize()) for item in singly], axis=0)
    assert (statistics.output_error(found.dequantize()) <= least * (1 + 1e-6)).all()


def test_dead_inputs_and_dead_layers_round_to_nearest():
    view = np.random.default_rng(7).normal(size=(3, 4, 1))
    scales = _channel_scales(view, 4)
    dead = dense_statistics(np.zeros((5, 4), np.float32), np.zeros((5, 3), np.float32)).centred()
    for method in LEARNED:
        codes = round_weight(view, scales, 4, dead, method, OPTIONS.get(method)).codes
        np.testing.assert_array_equal(codes, quantize_nearest(view, scales, 4).codes)


@pytest.mark.parametrize("method", LEARNED)
def test_very_small_inputs_learn_the_same_codes(method):
    random = np.random.default_rng(12)
    x = (random.normal(size=(200, 9)) @ random.normal(size=(9, 9))).astype(np.float32)
    view = random.normal(size=(4, 9, 1))
    z = x @ view[:, :, 0].T.astype(np.float32)
    scales = _channel_scales(view, 3)
    rounded = [
        round_weight(
            view,
            scales,
            3,
            dense_statistics(np.ldexp(x, exponent), np.ldexp(z, exponent)).centred(),
            method,
            OPTIONS.get(method),
            gains=(0.9, 1.1),
        )
        for exponent in (0, -74, -110)
    ]
    assert (rounded[0].codes != quantize_nearest(view, rounded[0].scales, 3).codes).any()
    for other in rounded[1:]:
        np.testing.assert_array_equal(other.codes, rounded[0].codes)


@pytest.mark.parametrize("wiggle", [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
def test_almost_constant_inputs(wiggle):
    """Their variances are small against the sums, whose noise must not make the quadratic indefinite."""
    random = np.random.default_rng(11)
    means = random.uniform(0.0, 5.0, 150)
    x = (means * (1.0 + wiggle * random.normal(size=(9000, 150)))).astype(np.float32)
    view = random.normal(size=(4, 150, 1))
    layers = [(view, dense_statistics(x, x @ view[:, :, 0].T.astype(np.float32)))]
    images, channels = x.reshape(1000, 3, 3, 150), random.normal(size=(150, 1, 9))
    for padding, side in (("valid", 1), ("same", 3)):
        z = np.ones((1000, side, side, 150), np.float32)
        window = Window((3, 3), padding=padding, groups=150)
        layers.append((channels, convolution_statistics(images, z, window)))
    for weight, sums in layers:
        problem = rounding_problem(weight, _channel_scales(weight, 4), 4, sums.centred(), damping=0.0)
        assert (np.linalg.eigvalsh(problem.gram) > 0.0).all()
        assert np.isfinite(coordinate_codes(problem)).all()


def test_constant_inputs_whose_sums_have_one_error():
    """As at taps of a depthwise convolution that see the same value at all positions: no entry is far off alone."""
    means = np.full((2, 9), 0.0224)
    gram = np.full((2, 9, 9), -9.6e-10) + np.array([0.0, 1.0])[:, None, None] * np.eye(9)
    statistics = CentredStatistics(gram, np.zeros((2, 1, 9)), means, np.zeros((2, 1)), np.zeros((2, 1)))
    view = np.random.default_rng(12).normal(size=(2, 1, 9))
    problem = rounding_problem(view, _channel_scales(view, 8), 8, statistics)
    assert (np.linalg.eigvalsh(problem.gram) > 0.0).all()
    assert np.isfinite(coordinate_codes(problem)).all()


@pytest.mark.parametrize("method", ROUNDING_METHODS)
def test_every_run_finds_the_same_codes(method):
    view, statistics = _correlated_layer(5, 7)
    scales, options = _channel_scales(view, 4), OPTIONS.get(method)
    first, second = (round_weight(view, scales, 4, statistics, method, options) for _ in "ab")
    np.testing.assert_array_equal(first.codes, second.codes)


def test_attention_round_reaches_levels_beyond_the_neighbours():
    x = np.random.default_rng(8).normal(size=(50, 1)).astype(np.float32).repeat(2, axis=1)
    view = np.array([[[5.0], [0.1]]])  # the first weight is cut off at 3, the second has the same input
    statistics = dense_statistics(x, x @ view[:, :, 0].T.astype(np.float32)).centred()
    options = AttentionRoundOptions(tau=1.0, steps=300, learning_rate=0.1)
    problem = rounding_problem(view, float_scales(np.ones((1, 1)), (1, 2)), 3, statistics, damping=0.0)
    codes = best_iterate(problem, np.zeros_like(problem.weight), options)
    np.testing.assert_array_equal(codes, [[[3, 2]]])


def test_whole_numbers_will_do_for_options():
    view, statistics = _correlated_layer(3, 4)
    options = AttentionRoundOptions(tau=1, steps=3, learning_rate=1)
    round_weight(view, _channel_scales(view, 4), 4, statistics, "attention", options)


def test_errors():
    view, statistics = _correlated_layer(3, 4)
    scales = _channel_scales(view, 4)
    with pytest.raises(ValueError, match="rounding is 'best'; it must be one of .*'nearest'"):
        round_weight(view, scales, 4, statistics, "best")
    with pytest.raises(ValueError, match="pass AdaRoundOptions"):
        round_weight(view, scales, 4, statistics, "adaround", AttentionRoundOptions())
    with pytest.raises(ValueError, match="damping is -1"):
        round_weight(view, scales, 4, statistics, damping=-1.0)
    with pytest.raises(ValueError, match="not all finite"):
        round_weight(view * np.nan, scales, 4, statistics)
    with pytest.raises(ValueError, match="does not fit statistics"):
        round_weight(view[:2], _channel_scales(view[:2], 4), 4, statistics)
    for bad in (dict(tau=0.0), dict(steps=0)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            AttentionRoundOptions(**bad)
    for bad in (dict(steps=0), dict(learning_rate=0.0)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            AdaRoundOptions(**bad)
