"""Networks with LSTM layers in integers: on all resolvers, in TFLite Micro, in the metadata and in reports."""

import functools
import re

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from micro_runtime import run_micro
from recurrent_models import FEATURES, NETWORKS, SEQUENCES, head, lstm, sequential
from stock_runtimes import RESOLVERS, details, encoded, run_codes, run_decoded, signal_to_noise

import tfptq
from tfptq import QuantizationConfig, override
from tfptq.float_file.lstm_operators import LSTM
from tfptq.tflite.micro_source import micro_methods
from tfptq.tflite.model import TFLiteModel


def quantize(model, *changes, samples=SEQUENCES, **fields):
    config = changes[0] if changes else QuantizationConfig(**fields)
    return tfptq.quantize_keras_model(model, samples, config, progress=False)


@functools.cache
def network(name):
    """One of ``NETWORKS``; tests that change weights make their own."""
    return NETWORKS[name]()


@functools.cache
def quantized(name, target="cpu"):
    """Its file by the default config."""
    return quantize(network(name), target=target)


def outputs(data, samples, resolver="REF"):
    return np.concatenate([run_decoded(data, {"x": sample[None]}, resolver)["output_0"] for sample in samples])


def codes_of(data, samples, resolver="REF"):
    (detail,) = details(data)[0].values()
    coded = [encoded(sample[None], detail) for sample in samples]
    return np.concatenate([run_codes(data, {detail["name"]: each}, resolver, "litert")[0] for each in coded])


def kinds(data):
    model = TFLiteModel(data)
    return [model.operator_name(operator) for operator in model.operators]


def rows(result, layer="memory"):
    return [row for row in result.report.layers if row.name.startswith(layer)]


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_close_to_float_on_all_resolvers(name):
    model, result = network(name), quantized(name)
    assert not result.report.float_operators and not result.report.skipped and not result.report.unfitted
    expected = model.predict(SEQUENCES, verbose=0)
    for resolver in RESOLVERS:
        assert signal_to_noise(expected, outputs(result.tflite, SEQUENCES, resolver)) > 31


@pytest.mark.parametrize("name", ["last step", "stacked", "both ways, all steps", "behind a convolution"])
def test_tflite_micro_is_within_two_codes_of_the_reference_kernels(name):
    """The gates' functions are a polynomial in LiteRT and a table in TFLite Micro: 16-bit values differ by steps."""
    model, result = network(name), quantized(name, "micro")
    found, expected = run_micro(result.tflite, SEQUENCES), codes_of(result.tflite, SEQUENCES)
    assert np.abs(found.astype(int) - expected).max() <= 2
    (detail,) = details(result.tflite)[1].values()
    scale, zero_point = detail["quantization"]
    real = (found.astype(np.float32) - zero_point) * scale
    assert signal_to_noise(model.predict(SEQUENCES, verbose=0), real) > 31


def test_the_builtin_kernels_are_those_of_the_reference():
    result = quantized("last step", "micro")
    expected = codes_of(result.tflite, SEQUENCES)
    for resolver in RESOLVERS:
        found = codes_of(result.tflite, SEQUENCES, resolver)
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_each_call_starts_anew_in_litert_and_tflite_micro():
    data = quantized("both ways, all steps", "micro").tflite
    again = SEQUENCES[[0, 1, 0]]
    found = run_micro(data, again)  # one interpreter for all
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for sample in again:
        interpreter.set_tensor(source["index"], encoded(sample[None], source))
        interpreter.invoke()
        results.append(interpreter.get_tensor(target["index"]))
    assert np.array_equal(results[0], results[2]) and not np.array_equal(results[0], results[1])


def test_states_that_last():
    model = sequential(lstm(stateful=True, return_sequences=True), head(), batch_size=1)
    layer = model.get_layer("memory")
    layer.reset_state()
    model(SEQUENCES[:1])
    before = keras.ops.convert_to_numpy(layer.states[0])
    result = quantize(model)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.states[0]), before)
    assert "REVERSE_V2" not in kinds(result.tflite)
    assert any("reset_all_variables()" in note for note in result.report.notes)
    interpreter = Interpreter(model_content=result.tflite)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def stream():
        interpreter.reset_all_variables()
        for sample in SEQUENCES:
            interpreter.set_tensor(source["index"], sample[None])
            interpreter.invoke()
            yield interpreter.get_tensor(target["index"])

    layer.reset_state()
    expected = np.concatenate([np.asarray(model(sample[None])) for sample in SEQUENCES])
    first, second = np.concatenate(list(stream())), np.concatenate(list(stream()))
    assert np.array_equal(first, second)
    assert signal_to_noise(expected, first) > 31


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"return_state": True}], ids=["function", "state"])
def test_states_that_cannot_last(options):
    model = sequential(lstm(stateful=True, **options), batch_size=1)
    with pytest.raises(ValueError, match="layer 'memory' keeps its state.*build it with stateful=False"):
        quantize(model)


def test_states_of_bidirectional_layers_cannot_last():
    model = sequential(layers.Bidirectional(lstm(stateful=True), name="both"), batch_size=1)
    with pytest.raises(ValueError, match="changes variables when the model predicts.*stateful=False"):
        quantize(model)


def test_the_file_describes_its_kernels():
    result = quantized("last step")
    verification = tfptq.verify(result.tflite)
    assert not verification.undescribed
    biases = [check for check in verification.checks if check.statement.startswith("bias")]
    assert len(biases) == 4 + 1  # one for each gate
    weights = [row for row in tfptq.inspect(result.tflite).weights if row.layer == "memory"]
    assert [row.operator for row in weights] == [LSTM] * 8
    assert {row.granularity for row in weights} == {"tensor"} and {row.bits for row in weights} == {8}
    file = TFLiteModel(result.tflite)
    (operator,) = (it for it in file.operators if file.operator_name(it) == LSTM)
    states = [file.tensors[operator.inputs[at]] for at in (18, 19)]
    assert [state.isVariable for state in states] == [True, True]
    hidden, cell = (state.quantization for state in states)
    result_grid = file.tensors[operator.outputs[0]].quantization
    assert (hidden.scale[0], hidden.zeroPoint[0]) == (result_grid.scale[0], result_grid.zeroPoint[0])
    assert np.log2(cell.scale[0]) in range(-12, -8) and cell.zeroPoint[0] == 0


@pytest.mark.parametrize("preset", ["w4a8_channel", "w4_dynamic_channel"])
def test_kernels_keep_eight_bits(preset):
    model = sequential(lstm(), layers.Dense(64, name="wide"), head())
    result = quantize(model, preset)
    assert {(row.bits, row.granularity) for row in rows(result)} == {(8, "tensor")}
    assert any("LSTM operators read no narrower weights" in note for note in result.report.notes)


def test_a_slow_kernel_is_told_where_there_is_a_faster_one():
    model = NETWORKS["last step"]()
    slow = [note for note in quantize(model).report.notes if "several times as long" in note]
    assert len(slow) == 1 and slow[0].startswith("memory on integers")
    for config in (
        QuantizationConfig(target="micro"),
        QuantizationConfig(overrides=[override("memory", activations="dynamic")]),
    ):
        assert not [note for note in quantize(model, config).report.notes if "several times as long" in note]


@pytest.mark.parametrize(("preset", "least"), [("w8_dynamic", 35), ("float16", 60)])
def test_float_activations(preset, least):
    model = network("last step")
    result = quantize(model, preset)
    assert LSTM in kinds(result.tflite)
    expected = model.predict(SEQUENCES, verbose=0)
    for resolver in RESOLVERS:
        assert signal_to_noise(expected, outputs(result.tflite, SEQUENCES, resolver)) > least


def test_overrides_by_the_name_of_the_layer():
    model = network("both ways")
    skipped = quantize(model, overrides=[override("both", skip=True)])
    assert [(it.name, it.reason) for it in skipped.report.skipped] == [("both", "the config skips it")]
    assert LSTM in [operator.operator for operator in skipped.report.float_operators]
    nearest = quantize(model, overrides=[override("both", rounding="nearest")])
    assert {row.rounding for row in rows(nearest, "both")} == {"nearest"}
    in_float = quantize(model, overrides=[override("both", activations="float")])
    assert {row.layout for row in rows(in_float, "both")} == {"weights_only"}
    expected = model.predict(SEQUENCES, verbose=0)
    for result in (skipped, nearest, in_float):
        assert signal_to_noise(expected, outputs(result.tflite, SEQUENCES)) > 31
    with pytest.raises(ValueError, match="layer 'both' cannot have the layout 'int4'"):
        quantize(model, overrides=[override("both", layout="int4")])


def test_sixteen_bits_leave_the_layer_in_float():
    result = quantize(network("last step"), activation_bits=16)
    (skipped,) = result.report.skipped
    assert skipped.name == "memory" and "no kernel for 16-bit activations" in skipped.reason


@pytest.mark.parametrize("samples", [np.zeros_like(SEQUENCES), np.ones_like(SEQUENCES)], ids=["zeros", "ones"])
def test_inputs_that_do_not_vary(samples):
    model = NETWORKS["last step"]()
    with pytest.warns(tfptq.QuantizationWarning):
        result = quantize(model, samples=samples)
    expected = model.predict(samples[:1], verbose=0)
    np.testing.assert_allclose(outputs(result.tflite, samples[:1]), expected, atol=0.05 * np.abs(expected).max())


def test_weights_of_zero():
    model = NETWORKS["last step"]()
    layer = model.get_layer("memory")
    layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    with pytest.warns(tfptq.QuantizationWarning):
        result = quantize(model)
    expected = model.predict(SEQUENCES[:1], verbose=0)
    np.testing.assert_allclose(outputs(result.tflite, SEQUENCES[:1]), expected, atol=1e-2)


def test_large_inputs():
    """A step of the input is many steps of the result."""
    model = sequential(layers.Rescaling(1000.0), lstm(), head())
    first = model.get_layer("memory").cell.kernel
    first.assign(first / 1000.0)
    result = quantize(model)
    expected = model.predict(SEQUENCES, verbose=0)
    assert signal_to_noise(expected, outputs(result.tflite, SEQUENCES)) > 28


UNROLLED = {
    "lstm": lstm,
    "gru": lambda: layers.GRU(16, name="memory"),
    "simple": lambda: layers.SimpleRNN(16, name="memory"),
    "functions": lambda: lstm(activation="relu"),
    "both ways": lambda: layers.Bidirectional(layers.GRU(12, return_sequences=True), name="memory"),
}


@pytest.mark.parametrize("name", UNROLLED)
def test_unrolled_layers_are_on_integers(name):
    model = sequential(UNROLLED[name](), head())
    result = quantize(model, unroll_steps=12, target="micro")
    assert not result.report.float_operators and not result.report.skipped
    assert rows(result) and not [note for note in result.report.notes if "loop" in note]
    (detail,) = details(result.tflite)[1].values()
    scale, zero_point = detail["quantization"]
    found = (run_micro(result.tflite, SEQUENCES).astype(np.float32) - zero_point) * scale
    assert signal_to_noise(model.predict(SEQUENCES, verbose=0), found) > 25


def test_layers_are_unrolled_by_overrides():
    model = sequential(lstm(return_sequences=True), layers.GRU(8, name="second"), head())
    result = quantize(model, unroll_steps=12, overrides=[override("memory", unroll_steps=0)])
    assert kinds(result.tflite).count(LSTM) == 1 and not result.report.float_operators
    result = quantize(model, overrides=[override("memory", unroll_steps=12)])
    assert LSTM not in kinds(result.tflite) and "WHILE" in kinds(result.tflite)


def test_overrides_reach_unrolled_kernels():
    model = sequential(UNROLLED["gru"](), head())
    result = quantize(model, unroll_steps=12, overrides=[override("memory/recurrent*", weight_bits=4)])
    bits = {row.name: row.bits for row in rows(result)}
    assert bits["memory/recurrent_gates"] == 4 and bits["memory/gates"] == 8


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            UNROLLED["gru"],
            "memory is a loop in float.*there are operators for LSTM alone; unroll_steps=12 in the config",
        ),
        (UNROLLED["functions"], "memory is a loop in float.*the functions relu, sigmoid.*unroll_steps=12"),
        (lambda: layers.RNN(layers.GRUCell(4), name="memory"), "memory is a loop in float.*it is a RNN, and .* alone$"),
    ],
    ids=["gru", "lstm", "cell"],
)
def test_loops_are_named_with_what_to_do(layer, words):
    result = quantize(sequential(layer(), head()))
    assert [note for note in result.report.notes if re.search(words, note)]


@pytest.mark.parametrize("steps", [-1, 2**20])
def test_impossible_numbers_of_steps(steps):
    with pytest.raises(ValueError, match="unroll_steps is .*; it must be between 0"):
        QuantizationConfig(unroll_steps=steps)


def test_lstm_operators_of_float_files():
    model, data = network("both ways"), quantized("both ways").float_tflite
    result = tfptq.quantize(data, SEQUENCES, progress=False)
    assert len(result.report.layers) == 17 and not result.report.float_operators
    assert signal_to_noise(model.predict(SEQUENCES, verbose=0), outputs(result.tflite, SEQUENCES)) > 31
    narrow = tfptq.quantize(data, SEQUENCES, "w4a8_mixed", progress=False)
    assert [row.bits for row in narrow.report.layers][:16] == [8] * 16


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.memory, self.head = layers.LSTM(12, name="memory"), layers.Dense(3)

    def call(self, x):
        return self.head(self.memory(x))


def test_lstm_layers_of_subclassed_models():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    expected = np.asarray(model(SEQUENCES))
    result = tfptq.quantize(model, SEQUENCES, progress=False)
    assert kinds(result.tflite).count(LSTM) == 1 and not result.report.float_operators
    (name,) = details(result.tflite)[0]
    found = np.concatenate([run_decoded(result.tflite, {name: it[None]}, "REF")["output_0"] for it in SEQUENCES])
    assert signal_to_noise(expected, found) > 31


def test_operators_that_clip_their_cell_state():
    """As the converter makes them of tf_keras."""
    file = TFLiteModel(quantize(sequential(lstm(return_sequences=True))).float_tflite)
    (operator,) = (it for it in file.operators if file.operator_name(it) == LSTM)
    operator.builtinOptions.cellClip = 0.3
    data = file.to_bytes()
    result = tfptq.quantize(data, SEQUENCES, progress=False)
    assert not result.report.float_operators
    assert signal_to_noise(outputs(data, SEQUENCES), outputs(result.tflite, SEQUENCES)) > 31


def test_the_resolver_of_a_program():
    assert "AddUnidirectionalSequenceLSTM" in micro_methods(quantized("last step", "micro").tflite)


def test_sequences_of_any_length():
    inputs = keras.Input((None, FEATURES), name="x")
    model = keras.Model(inputs, head()(lstm(return_sequences=True)(inputs)))
    result = quantize(model)
    assert LSTM in kinds(result.tflite) and not result.report.float_operators
    for length in (5, 30):
        sample = np.random.default_rng(length).normal(size=(1, length, FEATURES)).astype(np.float32)
        interpreter = Interpreter(model_content=result.tflite)
        (detail,) = interpreter.get_input_details()
        interpreter.resize_tensor_input(detail["index"], sample.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(detail["index"], sample)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert signal_to_noise(model.predict(sample, verbose=0), found) > 31
