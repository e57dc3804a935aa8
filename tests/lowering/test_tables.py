"""Embedding tables: what lies in the file, and that every stock resolver looks it up."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import RESOLVERS, RUNTIMES, run, signal_to_noise

import tfptq
from tfptq.config import PerBlock, QuantizationConfig, override
from tfptq.tflite.model import TFLiteModel

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

ROWS, WORDS = 96, 6
DYNAMIC = QuantizationConfig.from_preset("w8_dynamic").replace(rounding="nearest")


@keras.saving.register_keras_serializable(package="test_tables")
class Tied(layers.Layer):
    """Looks words up in a table, and scores vectors by the same."""

    def __init__(self, columns, **options):
        super().__init__(**options)
        self.columns = columns
        self.table = self.add_weight(shape=(ROWS, columns), initializer="normal", name="table")

    def call(self, x, scores=False):
        return keras.ops.matmul(x, keras.ops.transpose(self.table)) if scores else keras.ops.take(self.table, x, axis=0)

    def get_config(self):
        return {**super().get_config(), "columns": self.columns}


def network(columns=32, tied=False):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((WORDS,), dtype="int32", name="words")
    embedding = Tied(columns, name="tied") if tied else layers.Embedding(ROWS, columns, name="table")
    x = layers.Dense(columns, activation="gelu", name="inner")(layers.Flatten()(embedding(inputs)))
    return keras.Model(inputs, embedding(x, scores=True) if tied else layers.Dense(8, name="logits")(x))


def words():
    return np.random.default_rng(0).integers(0, ROWS, (16, WORDS)).astype(np.int32)


def quantized(model, config):
    x = words()
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    return result, x, model.predict(x, verbose=0)


def operators(tflite):
    return [row.operator for row in tfptq.inspect(tflite).operators]


def constants_of(tflite, kind):
    """Shape and bytes of the constants that operators of a kind read."""
    model = TFLiteModel(tflite)
    read = {index for op in model.operators if model.operator_name(op) == kind for index in op.inputs if index >= 0}
    found = (model.tensors[index] for index in sorted(read) if model.is_constant(index))
    return {(tuple(it.shape), len(model.root.buffers[it.buffer].data)) for it in found}


@pytest.mark.parametrize("preset", ["w8a8_channel", "w8a8_shift", "w8a8_layer"])
def test_a_table_that_is_a_kernel_is_stored_once_on_integers(preset):
    """It is looked up in float, by the scales of the kernel."""
    config = QuantizationConfig.from_preset(preset).replace(rounding="nearest")
    result, x, expected = quantized(network(tied=True), config)
    assert constants_of(result.tflite, "EMBEDDING_LOOKUP") == {((ROWS, 32), ROWS * 32)}
    assert len([row for row in tfptq.inspect(result.tflite).weights if row.bytes == ROWS * 32]) == 1
    assert len(result.tflite) < len(tfptq.quantize_keras_model(network(), x, config, progress=False).tflite) + ROWS * 32
    assert any("shares the codes of a dense layer" in line for line in result.report.notes)
    for runtime in RUNTIMES:
        for resolver in RESOLVERS:
            found = run(result.tflite, {"words": x}, resolver, runtime)["output_0"]
            assert signal_to_noise(expected, found) > 25.0
    assert not tfptq.verify(result.tflite).undescribed


def test_targets_without_float_keep_tied_tables_on_integers():
    config = QuantizationConfig.from_preset("w8a8_channel").replace(target="npu", rounding="nearest")
    result, _, _ = quantized(network(tied=True), config)
    assert "GATHER" in operators(result.tflite)
    (found,) = tfptq.verify(result.tflite).undescribed
    assert found.operator == "GATHER" and "INT8: tables have no record" in found.reason


@pytest.mark.parametrize(
    ("columns", "changes", "size"),
    [
        (32, {}, ROWS * 32),
        (31, {}, ROWS * 31),
        (32, {"weight_bits": 4}, ROWS * 16),
        (32, {"weight_bits": 3}, ROWS * 16),
        (31, {"weight_bits": 4}, ROWS * 31),
        (64, {"weight_bits": 4, "granularity": PerBlock(1, 32)}, ROWS * 32),
        (48, {"weight_bits": 4, "granularity": PerBlock(1, 32)}, ROWS * 24),
        (32, {"weight_bits": 4, "target": "any"}, ROWS * 32),
    ],
)
def test_tables_of_float_activations(columns, changes, size):
    fewer = override("table", weight_bits=changes.get("weight_bits", 8))
    result, x, expected = quantized(network(columns), DYNAMIC.replace(edge_bits=None, overrides=(fewer,), **changes))
    assert "GATHER" not in operators(result.tflite)
    assert constants_of(result.tflite, "EMBEDDING_LOOKUP") == {((ROWS, columns), size)}
    (note,) = (line for line in result.report.notes if "embedding table" in line)
    assert f"({ROWS}x{columns})" in note and result.report.skipped == ()
    blocks = any(row.layout == "native" for row in result.report.layers)
    for runtime in RUNTIMES:
        for resolver in ("AUTO", "BUILTIN") if blocks else RESOLVERS:
            found = run(result.tflite, {"words": x}, resolver, runtime)["output_0"]
            assert signal_to_noise(expected, found) > (30.0 if result.config.weight_bits == 8 else 8.0)


def test_lookups_are_exact():
    inputs = keras.Input((WORDS,), dtype="int32", name="words")
    model = keras.Model(inputs, layers.Dense(4)(layers.Embedding(ROWS, 32, name="table")(inputs)))
    config = DYNAMIC.replace(overrides=(override("table", weight_bits=4),))
    result, x, _ = quantized(model, config)
    rows = TFLiteModel(result.tflite)
    (lookup,) = (op for op in rows.operators if rows.operator_name(op) == "EMBEDDING_LOOKUP")
    rows.subgraph.outputs, rows.root.signatureDefs = list(lookup.outputs), None
    found = {resolver: run_plain(rows.to_bytes(), x, resolver) for resolver in RESOLVERS}
    table = model.get_layer("table").get_weights()[0][x.reshape(-1)]
    for values in found.values():
        np.testing.assert_array_equal(values, found["REF"])
        assert 15.0 < signal_to_noise(table, values) < 30.0


def run_plain(data, x, resolver):
    interpreter, resolvers = RUNTIMES["litert"]
    runner = interpreter(model_content=data, experimental_op_resolver_type=getattr(resolvers, RESOLVERS[resolver]))
    (source,) = runner.get_input_details()
    runner.resize_tensor_input(source["index"], x.shape)
    runner.allocate_tensors()
    runner.set_tensor(source["index"], x)
    runner.invoke()
    return runner.get_tensor(runner.get_output_details()[0]["index"])


@pytest.mark.parametrize(("bits", "share"), [(8, 1.0), (4, 0.5)])
def test_a_table_that_is_a_kernel_as_well_is_stored_once(bits, share):
    model = network(tied=True)
    result, x, expected = quantized(model, DYNAMIC.replace(weight_bits=bits, edge_bits=None))
    assert any("shares the codes of a dense layer" in line for line in result.report.notes)
    (table,) = constants_of(result.tflite, "EMBEDDING_LOOKUP")
    assert table in constants_of(result.tflite, "FULLY_CONNECTED") and table[1] in (ROWS * 32, ROWS * 32 * share)
    for resolver in RESOLVERS:
        assert signal_to_noise(expected, run(result.tflite, {"words": x}, resolver)["output_0"]) > 8.0


def test_tables_on_integers():
    config = QuantizationConfig.from_preset("w8a8_channel")
    for own in (config, config.replace(activation_bits=16)):
        result, x, expected = quantized(network(), own)
        found = operators(result.tflite)
        assert "GATHER" in found
        if own.activation_bits == 8:  # there is no GELU on 16 bits
            assert "QUANTIZE" not in found
        assert len(result.tflite) < 0.5 * len(result.float_tflite)
        for runtime in RUNTIMES:
            for resolver in RESOLVERS:
                values = run(result.tflite, {"words": x}, resolver, runtime)["output_0"]
                assert signal_to_noise(expected, values) > 25.0


def test_tables_that_are_left_in_float():
    skipped = DYNAMIC.replace(overrides=(override("table", skip=True),))
    result, _, _ = quantized(network(), skipped)
    assert "GATHER" in operators(result.tflite)
    assert [(row.name, row.reason) for row in result.report.skipped] == [("table", "the config skips it")]
    half, _, _ = quantized(network(), DYNAMIC.replace(overrides=(override("table", activations="static"),)))
    assert "GATHER" in operators(half.tflite)


def test_tables_have_8_bits_unless_an_override_names_fewer():
    result, _, _ = quantized(network(), DYNAMIC.replace(weight_bits=4, edge_bits=None))
    assert constants_of(result.tflite, "EMBEDDING_LOOKUP") == {((ROWS, 32), ROWS * 32)}
