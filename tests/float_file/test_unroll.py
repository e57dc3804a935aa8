"""Recurrent layers step by step, as operators without loops."""

import keras
import numpy as np
import pytest
from keras import layers
from recurrent_models import FEATURES, SEQUENCES, STEPS, head, sequential

from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.float_file.lstm_operators import LSTM
from tfptq.graph.canonicalise import canonicalise

LAYERS = {
    "gru": lambda: layers.GRU(5, name="memory"),
    "gru, reset before": lambda: layers.GRU(5, reset_after=False, name="memory"),
    "gru, no bias": lambda: layers.GRU(5, use_bias=False, return_sequences=True, name="memory"),
    "simple": lambda: layers.SimpleRNN(5, name="memory"),
    "simple, backwards": lambda: layers.SimpleRNN(5, go_backwards=True, return_sequences=True, name="memory"),
    "lstm of other functions": lambda: layers.LSTM(5, activation="relu", name="memory"),
    "lstm": lambda: layers.LSTM(5, return_sequences=True, name="memory"),
    "both ways": lambda: layers.Bidirectional(layers.GRU(5, return_sequences=True), name="memory"),
    "dropout": lambda: layers.GRU(5, dropout=0.3, recurrent_dropout=0.3, name="memory"),
}


def file_of(model, steps):
    canonical = canonicalise(model)
    return make_float_file(canonical, {}, steps_of=lambda layer: steps), canonical


def kinds(float_file):
    return [float_file.model.operator_name(operator) for operator in float_file.model.operators]


@pytest.mark.parametrize("name", LAYERS)
def test_unrolled_layers_compute_what_they_did(name):
    float_file, model = file_of(sequential(LAYERS[name](), head()), STEPS)
    assert {"WHILE", LSTM}.isdisjoint(kinds(float_file))
    assert float_file.batch_size is None  # nothing needs to know it
    assert check_float_file(float_file, model, {"x": SEQUENCES[:5]}) < 1e-5


def test_a_kernel_is_one_for_all_steps():
    float_file, _ = file_of(sequential(LAYERS["gru"](), head()), STEPS)
    uses = {kernel.id.owner: len(kernel.uses) for kernel in float_file.kernels}
    inner = {name: count for name, count in uses.items() if name.startswith("memory")}
    assert inner == {
        "memory/gates": 1,  # of all steps at once
        "memory/candidate": 1,
        "memory/recurrent_gates": STEPS - 1,  # it starts from zeros
        "memory/recurrent_candidate": STEPS - 1,
    }


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM, layers.SimpleRNN])
def test_states_go_in_and_out(kind):
    x = keras.Input((STEPS, FEATURES), name="x")
    states = [keras.Input((5,), name=f"state_{number}") for number in range(1 + (kind is layers.LSTM))]
    result, *after = kind(5, return_state=True, name="memory")(x, initial_state=states)
    model = keras.Model([x, *states], [result, *after])
    model.set_weights([0.3 * np.random.default_rng(3).normal(size=weight.shape) for weight in model.weights])
    float_file, canonical = file_of(model, STEPS)
    assert {"WHILE", LSTM}.isdisjoint(kinds(float_file))
    rng = np.random.default_rng(0)
    batch = {"x": SEQUENCES[:5]} | {state.name: rng.normal(size=(5, 5)).astype(np.float32) for state in states}
    assert check_float_file(float_file, canonical, batch) < 1e-5


def test_longer_sequences_stay_loops():
    float_file, _ = file_of(sequential(LAYERS["gru"]()), STEPS - 1)
    assert "WHILE" in kinds(float_file) and float_file.batch_size == 1


def test_layers_are_unrolled_one_by_one():
    model = sequential(layers.LSTM(5, return_sequences=True, name="memory"), layers.GRU(4, name="second"))
    canonical = canonicalise(model)
    float_file = make_float_file(canonical, {}, steps_of=lambda layer: STEPS if layer == "second" else 0)
    assert kinds(float_file).count(LSTM) == 1 and "WHILE" not in kinds(float_file)
    assert check_float_file(float_file, canonical, {"x": SEQUENCES[:5]}) < 1e-5


def test_masks_stay_loops():
    inputs = keras.Input((STEPS,), dtype="int32", name="x")
    x = layers.GRU(3, name="memory")(layers.Embedding(9, 4, mask_zero=True)(inputs))
    model = keras.Model(inputs, x)
    model.set_weights([0.3 * np.random.default_rng(3).normal(size=weight.shape) for weight in model.weights])
    float_file, canonical = file_of(model, STEPS)
    assert "WHILE" in kinds(float_file)
    tokens = np.random.default_rng(0).integers(0, 9, (4, STEPS)).astype(np.int32)
    assert check_float_file(float_file, canonical, {"x": tokens}) < 1e-5
