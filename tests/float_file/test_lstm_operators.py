"""LSTM layers of Keras as operators of the float file, which computes what the layers do."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from recurrent_models import FEATURES, NETWORKS, SEQUENCES, STEPS, head, lstm, sequential
from stock_runtimes import RESOLVERS, run

from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.float_file.lstm_operators import LSTM, lstm_operators, weights_of
from tfptq.graph.canonicalise import canonicalise
from tfptq.pipeline.steps import kernel_views


def float_file_of(model):
    canonical = canonicalise(model)
    return make_float_file(canonical, kernel_views(canonical)), canonical


def kinds(float_file):
    return [float_file.model.operator_name(operator) for operator in float_file.model.operators]


def set_random(model):
    model.set_weights([0.3 * np.random.default_rng(3).normal(size=weight.shape) for weight in model.weights])
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_files_compute_what_the_model_does(name):
    float_file, model = float_file_of(NETWORKS[name]())
    assert check_float_file(float_file, model, {"x": SEQUENCES[:6]}) < 1e-5
    expected = {"stacked": 2, "both ways": 2, "both ways, all steps": 2}.get(name, 1)
    assert kinds(float_file).count(LSTM) == expected
    assert "WHILE" not in kinds(float_file) and len(float_file.model.root.subgraphs) == 1
    assert float_file.batch_size == 1


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_each_call_starts_anew(resolver):
    float_file, _ = float_file_of(NETWORKS["both ways"]())
    interpreter = Interpreter(model_content=float_file.data)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for sample in SEQUENCES[[0, 1, 0]]:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(target["index"]))
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])
    (alone,) = run(float_file.data, {"x": SEQUENCES[:1]}, resolver).values()
    np.testing.assert_allclose(alone, found[0], atol=1e-5)


def test_kernels_go_by_their_layer_and_gate():
    float_file, model = float_file_of(NETWORKS["both ways"]())
    found = {kernel.id: kernel for kernel in float_file.kernels}
    inner = model.get_layer("both").backward_layer
    kernel, recurrent, bias = (keras.ops.convert_to_numpy(weight) for weight in inner.weights)
    forget = found["both", f"{inner.name}/forget/kernel"]
    np.testing.assert_array_equal(forget.values[:, :, 0], kernel[:, 16:32].T)
    np.testing.assert_array_equal(forget.uses[0].bias, bias[16:32])
    shown = found["both", f"{inner.name}/output/recurrent_kernel"]
    np.testing.assert_array_equal(shown.values[:, :, 0], recurrent[:, 48:].T)
    assert shown.uses[0].bias is None and not shown.uses[0].alone
    assert len(found) == 2 * 8 + 1


def test_a_layer_that_is_called_twice_has_one_set_of_kernels():
    a, b = keras.Input((STEPS, FEATURES), name="a"), keras.Input((STEPS, FEATURES), name="b")
    memory = lstm()
    model = set_random(keras.Model([a, b], layers.Add()([memory(a), memory(b)])))
    float_file, canonical = float_file_of(model)
    assert [len(kernel.uses) for kernel in float_file.kernels] == [2] * 8
    batch = {"a": SEQUENCES[:3], "b": SEQUENCES[3:6]}
    assert check_float_file(float_file, canonical, batch) < 1e-5


def test_one_feature_is_no_multiple_of_another_weight():
    inputs = keras.Input((STEPS, 1), name="x")
    x = layers.Dense(16, name="front")(inputs)
    model = set_random(keras.Model(inputs, layers.Add()([lstm()(inputs), x[:, -1]])))
    float_file, _ = float_file_of(model)
    assert [kernel.id.layer for kernel in float_file.kernels].count("memory") == 8
    assert len(float_file.kernel("front").uses) == 1


def test_a_fixed_batch_stays():
    float_file, model = float_file_of(sequential(lstm(), batch_size=3))
    assert float_file.batch_size == 3
    assert check_float_file(float_file, model, {"x": SEQUENCES[:3]}) < 1e-5


def test_weights_with_other_biases():
    float_file, _ = float_file_of(NETWORKS["last step"]())
    kernel = float_file.kernel("memory", "cell/recurrent_kernel")
    shift = np.linspace(-1, 1, 16, dtype=np.float32)
    changed = float_file.with_values({kernel.uses[0]: (2 * kernel.values, shift)})
    before, after = (weights_of(it.model, *lstm_operators(it.model)) for it in (float_file, changed))
    np.testing.assert_array_equal(after.recurrent[2], 2 * before.recurrent[2])
    np.testing.assert_allclose(after.biases[2], before.biases[2] + shift, rtol=1e-6)
    for gate in (0, 1, 3):
        np.testing.assert_array_equal(after.biases[gate], before.biases[gate])


@pytest.mark.parametrize(
    "options",
    [{"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}, {"return_state": True}],
    ids=["function", "gates", "state"],
)
def test_other_layers_stay_loops(options):
    float_file, model = float_file_of(sequential(lstm(**options)))
    assert LSTM not in kinds(float_file) and "WHILE" in kinds(float_file)
    assert check_float_file(float_file, model, {"x": SEQUENCES[:3]}) < 1e-5


def test_masked_sequences_stay_loops():
    inputs = keras.Input((STEPS,), dtype="int32", name="x")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    float_file, model = float_file_of(set_random(keras.Model(inputs, lstm()(x))))
    assert LSTM not in kinds(float_file)
    tokens = np.random.default_rng(0).integers(0, 9, (3, STEPS)).astype(np.int32)
    assert check_float_file(float_file, model, {"x": tokens}) < 1e-5


def test_unrolled_layers_are_ordinary_operators():
    float_file, _ = float_file_of(sequential(lstm(unroll=True), head()))
    assert {LSTM, "WHILE"}.isdisjoint(kinds(float_file)) and "FULLY_CONNECTED" in kinds(float_file)


def test_layers_are_as_before():
    model = NETWORKS["both ways"]()
    before = model.predict(SEQUENCES[:2], verbose=0)
    make_float_file(model, {})
    inner = model.get_layer("both").forward_layer
    assert inner.call.__func__ is keras.layers.LSTM.call
    np.testing.assert_array_equal(model.predict(SEQUENCES[:2], verbose=0), before)
