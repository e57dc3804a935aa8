import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.affine import SCALE_KINDS, weight_code_range
from tfptq.core.block_errors import BlockErrors
from tfptq.core.blocks import quantize_nearest
from tfptq.core.scale_search import search_scales
from tfptq.core.weight_scales import start_scales


def problem(seed, outputs=8, inputs=6, taps=1, groups=1, magnitude=1.0):
    """Weights, samples of the inputs ``[G, N, K]``, their covariance, and cross terms with noisy float outputs."""
    rng = np.random.default_rng(seed)
    columns = inputs * taps
    view = rng.standard_t(4, (outputs, inputs, taps)) * rng.uniform(0.1, 1.0, (outputs, inputs, 1))
    view = (magnitude * view).astype(np.float32)
    x = np.maximum(rng.normal(size=(groups, 60, columns)) + rng.normal(size=(groups, 60, 1)), 0.0)
    x -= x.mean(axis=1, keepdims=True)
    gram = x.transpose(0, 2, 1) @ x / 60
    weight = view.astype(np.float64).reshape(groups, -1, columns)
    z = weight @ (x + 0.05 * rng.normal(size=x.shape)).transpose(0, 2, 1)  # [G, P, N]
    z -= z.mean(axis=2, keepdims=True)
    return view, x, gram, z, z @ x / 60


def outputs_of(view, x, scales, bits):
    quantized = quantize_nearest(view, scales, bits).dequantize().astype(np.float64)
    return quantized.reshape(x.shape[0], -1, x.shape[2]) @ x.transpose(0, 2, 1)


def scale_objective(view, scales, bits, gram, cross=None):
    """Objective of each row block, float64 ``[V]``."""
    errors = BlockErrors(view, gram, cross, scales.block_shape, bits, np.float64)
    return errors.row_objective(scales.values())


cases = st.tuples(
    st.sampled_from([(8, 6, 1, 1), (6, 3, 4, 1), (8, 1, 9, 8), (8, 3, 2, 2)]), st.integers(1, 9), st.integers(1, 7)
)


@pytest.mark.parametrize("kind", SCALE_KINDS)
@given(
    case=cases,
    bits=st.integers(2, 8).filter(lambda b: b != 7),
    seed=st.integers(0, 999),
    crossed=st.booleans(),
    magnitude=st.sampled_from([1e-12, 1.0, 1e12]),
)
@settings(max_examples=25)
def test_search_is_never_worse_than_its_starts_in_any_row(kind, case, bits, seed, crossed, magnitude):
    shape, m, n = case
    m, n = min(m, shape[0]), min(n, shape[1])
    view, _, gram, _, cross = problem(seed, *shape, magnitude=magnitude)
    cross = cross if crossed else None
    found = search_scales(view, gram, (m, n), bits, kind, cross)
    cost = scale_objective(view, found, bits, gram, cross)
    for start in start_scales(view, (m, n), bits, kind):
        reference = scale_objective(view, start, bits, gram, cross)
        assert (cost <= reference + 1e-12 * np.abs(reference)).all()
    assert found.kind == kind and found.factors.shape == (-(-shape[0] // m), -(-shape[1] // n))
    assert np.isfinite(found.values()).all() and (found.values() > 0).all()
    if kind != "float":
        multiples = found.factors.astype(int) if kind == "integer" else 2 ** found.factors.astype(int)
        assert multiples.min() >= 1 and multiples.max() * -weight_code_range(bits)[0] <= 127
        assert kind == "shift" or multiples.max() <= 16
        assert quantize_nearest(view, found, bits).int8_form() is not None


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("shape", [(8, 6, 1, 1), (6, 3, 4, 1), (8, 1, 9, 8)])
def test_objective_is_the_error_of_the_outputs(shape, crossed):
    view, x, gram, z, cross = problem(0, *shape)
    if not crossed:
        z, cross = view.astype(np.float64).reshape(*z.shape[:2], -1) @ x.transpose(0, 2, 1), None
    scales = start_scales(view, (2, shape[1]), 3, "float")
    errors = [np.mean((z - outputs_of(view, x, s, 3)) ** 2, axis=2).reshape(-1, 2).sum(axis=1) for s in scales]
    costs = [scale_objective(view, s, 3, gram, cross) for s in scales]
    # Equal up to a positive factor and a constant per row block.
    unit = np.abs(view).max() ** 2 * np.einsum("gkk->gk", gram).mean()
    np.testing.assert_allclose((costs[0] - costs[1]) * unit, errors[0] - errors[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("crossed", [False, True])
def test_column_costs_are_differences_of_the_objective(crossed):
    view, _, gram, _, cross = problem(2, 7, 5, 2)
    errors = BlockErrors(view, gram, cross if crossed else None, (3, 2), 4, np.float64)
    values = start_scales(view, (3, 2), 4, "float")[0].values()
    before = errors.set_scales(values)
    for h in range(3):
        moved = values.copy()
        moved[:, h] *= 0.8
        costs = errors.column_costs(h, moved[None, :, h])
        np.testing.assert_allclose(costs[0] - costs[1], errors.row_objective(moved) - before, atol=1e-10)
        errors.set_column(h, moved[:, h])
        errors.set_column(h, values[:, h])


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_search_helps_clearly_at_3_bits(kind):
    view, x, gram, _, _ = problem(3, 32, 24)
    exact = view.astype(np.float64).reshape(1, 32, -1) @ x.transpose(0, 2, 1)
    found = search_scales(view, gram, (4, 6), 3, kind)
    errors = [
        np.sum((outputs_of(view, x, scales, 3) - exact) ** 2)
        for scales in (found, *start_scales(view, (4, 6), 3, kind))
    ]
    assert errors[0] < 0.8 * min(errors[1:])


def test_integer_scales_come_close_to_float_ones():
    view, x, gram, _, _ = problem(4, 64, 48)
    exact = view.astype(np.float64).reshape(1, 64, -1) @ x.transpose(0, 2, 1)
    noise = {
        kind: np.sum((outputs_of(view, x, search_scales(view, gram, (8, 12), 4, kind), 4) - exact) ** 2)
        for kind in ("float", "integer")
    }
    assert noise["integer"] < 1.06 * noise["float"]


@pytest.mark.parametrize("allowed", [(2, 3, 4, 6), (15,), (6, 4, 6)])
def test_integer_scales_keep_to_the_multipliers_allowed(allowed):
    view, _, gram, _, _ = problem(5, 16, 12)
    found = [search_scales(view, gram, (4, 3), 4, "integer", allowed=allowed)]
    found += start_scales(view, (4, 3), 4, "integer", allowed)
    for scales in found:
        assert {*scales.factors.ravel()} <= {*allowed}
    costs = [scale_objective(view, scales, 4, gram).sum() for scales in found]
    assert costs[0] <= min(costs[1:])
    free = scale_objective(view, search_scales(view, gram, (4, 3), 4, "integer"), 4, gram).sum()
    assert free < costs[0]


def test_multipliers_that_none_fits_are_refused():
    view, _, gram, _, _ = problem(5)
    with pytest.raises(ValueError, match=r"multipliers is \(2, 3\); with 8 bits at least one must be 1 or less"):
        search_scales(view, gram, (2, 2), 8, "integer", allowed=(2, 3))


@pytest.mark.parametrize("kind", SCALE_KINDS)
def test_one_block_per_row_needs_no_multipliers(kind):
    view, _, gram, _, _ = problem(5)
    reference = search_scales(view, gram, (1, 6), 4, "float")
    np.testing.assert_array_equal(search_scales(view, gram[0], (1, 6), 4, kind).values(), reference.values())


def test_dead_blocks_and_dead_inputs():
    view, _, gram, _, _ = problem(6)
    view[3], view[:4, 2:4] = 0.0, 0.0
    gram[:, 5], gram[:, :, 5] = 0.0, 0.0
    for kind in SCALE_KINDS:
        scales = search_scales(view, gram, (2, 2), 4, kind)
        assert np.isfinite(scales.values()).all() and (scales.values() > 0).all()
        for zeros in (np.zeros_like(view), view):
            assert np.isfinite(search_scales(zeros, np.zeros_like(gram), (2, 2), 4, kind).values()).all()


def test_misuse_is_refused():
    view, _, gram, _, cross = problem(7)
    with pytest.raises(ValueError, match="scale kind"):
        search_scales(view, gram, (1, 6), 4, "double")
    with pytest.raises(ValueError, match="Gram matrix"):
        search_scales(view, gram[:, :5, :5], (1, 6), 4)
    with pytest.raises(ValueError, match="cross terms"):
        search_scales(view, gram, (1, 6), 4, cross=cross[:, :2])


@pytest.mark.parametrize("kind", ["integer", "shift"])
def test_a_thorough_search_finds_better_scales(kind):
    def costs(thorough):
        problems = (problem(seed, 16, 12) for seed in range(4))
        return [
            scale_objective(view, search_scales(view, gram, (4, 3), 4, kind, thorough=thorough), 4, gram).sum()
            for view, _, gram, _, _ in problems
        ]

    quick, thorough = costs(False), costs(True)
    assert sum(thorough) < 0.999 * sum(quick)
    assert all(mine <= 1.01 * theirs for mine, theirs in zip(thorough, quick, strict=True))
