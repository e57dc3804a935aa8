"""States of an LSTM from its results, against steps one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.lstm import LstmWeights, previous


def steps(weights, x):
    """Results and cell states ``[B, T, U]``, step by step, as the papers have it."""
    h = c = np.zeros((len(x), weights.biases.shape[1]))
    results, states = [], []
    for step in range(x.shape[1]):
        a = [
            x[:, step] @ kernel.T + h @ recurrent.T + bias
            for kernel, recurrent, bias in zip(weights.kernels, weights.recurrent, weights.biases, strict=True)
        ]
        added, kept, shown = (1 / (1 + np.exp(-a[gate])) for gate in (0, 1, 3))
        c = kept * c + added * np.tanh(a[2])
        c = np.clip(c, -weights.clip, weights.clip) if weights.clip else c
        h = shown * np.tanh(c)
        results.append(h)
        states.append(c)
    return np.stack(results, 1), np.stack(states, 1)


def random_weights(rng, units, inputs, clip=0.0):
    shapes = (4, units, inputs), (4, units, units), (4, units)
    return LstmWeights(*(rng.normal(size=shape) for shape in shapes), clip)


sizes = st.tuples(*(st.integers(1, 4) for _ in range(4)), st.integers(0, 2**32 - 1))


@given(sizes, st.sampled_from([0.0, 0.5]))
def test_cell_states(sizes, clip):
    batch, length, inputs, units, seed = sizes
    rng = np.random.default_rng(seed)
    weights, x = random_weights(rng, units, inputs, clip), rng.normal(size=(batch, length, inputs))
    h, c = steps(weights, x)
    np.testing.assert_allclose(weights.cell_states(x, h), c, atol=1e-9)


@given(sizes)
def test_gate_inputs_consist_of_two_parts(sizes):
    batch, length, inputs, units, seed = sizes
    rng = np.random.default_rng(seed)
    weights, x = random_weights(rng, units, inputs), rng.normal(size=(batch, length, inputs))
    h, _ = steps(weights, x)
    for gate in range(4):
        rest = weights.gate_inputs(gate, x, h) - weights.of_input(gate, x)
        np.testing.assert_allclose(rest[:, 1:], h[:, :-1] @ weights.recurrent[gate].T, atol=1e-9)
        assert not rest[:, 0].any()


def test_before_the_first_step_is_zero():
    h = np.arange(6.0).reshape(1, 3, 2) + 1
    np.testing.assert_array_equal(previous(h)[0], [[0, 0], [1, 2], [3, 4]])
