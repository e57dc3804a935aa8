"""Inputs whose columns differ much in size are normalized in float; others cost nothing."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import RESOLVERS, run_decoded, signal_to_noise

import tfptq
from tfptq.graph import canonicalise, check_float_equal, input_normalizations_to_keep

RNG = np.random.default_rng(0)
#: Columns of a table: sizes from 0.01 to 1000, one far from 0.
TABLE = (RNG.normal(size=(300, 6)) * [0.01, 1.0, 30.0, 1000.0, 5.0, 0.5] + [0, 2, 0, 3000, 300, -7]).astype(np.float32)
MEAN, DEVIATION = TABLE.mean(axis=0), TABLE.std(axis=0)


def normalization(x):
    layer = layers.Normalization(name="normalize")
    layer.adapt(TABLE)
    return layer(x)


def batch_norm(x):
    layer = layers.BatchNormalization(name="normalize")
    y = layer(x)
    layer.set_weights([np.full(6, 2.0), np.full(6, 0.5), MEAN, DEVIATION**2])
    return y


def arithmetic(x):
    return layers.Dropout(0.1)(x - MEAN) / DEVIATION


def table_network(head):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="table")
    x = layers.Dense(16, activation="relu")(head(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize("head", [normalization, batch_norm, arithmetic])
def test_a_table_is_normalized_in_float(head):
    model = table_network(head)
    result = tfptq.quantize_keras_model(model, TABLE, progress=False)
    expected = model.predict(TABLE, verbose=0)
    for resolver in RESOLVERS:
        (outputs,) = run_decoded(result.tflite, {"table": TABLE}, resolver).values()
        assert signal_to_noise(expected, outputs) > 25.0
    assert signal_to_noise(expected, result.keras_model.predict(TABLE, verbose=0)) > 25.0
    assert [item.operator for item in result.report.float_operators] == ["SUB", "MUL"]
    assert all("differ too much for one grid" in item.reason for item in result.report.float_operators)
    assert len(result.report.layers) == 2 and not result.report.skipped


@pytest.mark.parametrize("head", [normalization, batch_norm, arithmetic])
def test_the_layer_in_its_place_computes_the_same(head):
    model, batch = table_network(head), {"table": TABLE[:50]}
    names = input_normalizations_to_keep(model, [batch])
    canonical = canonicalise(model, names)
    assert [type(layer).__name__ for layer in canonical.layers] == ["InputLayer", "Normalization", "Dense", "Dense"]
    check_float_equal(model, canonical, batch)


@pytest.mark.parametrize("head", [normalization, batch_norm, arithmetic])
@pytest.mark.parametrize(("input_type", "bits"), [("int8", 8), ("uint8", 8), ("int16", 16)])
def test_integer_inputs_are_read_as_they_are(head, input_type, bits):
    """The weights of small columns are lost beside others where the codes of the columns are not."""
    settings = {"input_type": input_type, "activation_bits": bits}
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(**settings)
    result = tfptq.quantize_keras_model(table_network(head), TABLE, config, progress=False)
    assert result.report.outputs["output_0"] < 12.0
    assert not result.report.float_operators
    first, *others = result.report.warnings
    assert first.startswith("the channels (columns) of input 'table' differ") and f"one {input_type} grid" in first
    assert bits == 16 or any("signal to noise" in warning or "same for all samples" in warning for warning in others)


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Rescaling(1 / 127.5, -1.0)(x),
        lambda x: layers.Normalization(mean=[124.0, 117.0, 104.0], variance=[3400.0, 3300.0, 3500.0])(x),
        lambda x: x - np.float32([124.0, 117.0, 104.0]),
        lambda x: (x - 100.0) / -50.0,
    ],
    ids=["rescaling", "normalization", "means", "negative"],
)
def test_pictures_keep_their_grid(head):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(head(inputs)))
    images = RNG.integers(0, 256, (20, 8, 8, 3)).astype(np.float32)
    assert not input_normalizations_to_keep(model, [{"image": images}])
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel")
    result = tfptq.quantize_keras_model(model, images, config, progress=False)
    assert not result.report.float_operators
    result = tfptq.quantize_keras_model(model, images, config.replace(input_type="int8"), progress=False)
    assert not any("differ too much" in warning for warning in result.report.warnings)


def test_one_of_two_readers():
    """The other one reads the input as it is."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="table")
    outputs = layers.Concatenate()([layers.Dense(3)(normalization(inputs)), layers.Dense(3, name="raw")(inputs)])
    model = keras.Model(inputs, outputs)
    assert input_normalizations_to_keep(model, [{"table": TABLE}]) == {"normalize": "table"}
    result = tfptq.quantize_keras_model(model, TABLE, "w8a8_channel", progress=False)
    # The results are joined in float as well: they differ as much in size.
    assert [item.operator for item in result.report.float_operators] == ["SUB", "MUL", "CONCATENATION"]


@pytest.mark.parametrize("tables", [1, 2])
def test_a_normalization_called_twice(tables):
    """On one table, or on one each."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6,), name=f"table{number}") for number in range(tables)]
    normalize = layers.Normalization(name="normalize")
    normalize.adapt(TABLE)
    both = [layers.Dense(8, activation="relu")(normalize(inputs[index])) for index in (0, tables - 1)]
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()(both)))
    samples = {f"table{number}": TABLE[number:] for number in range(tables)}
    samples = {name: values[: len(TABLE) - 1] for name, values in samples.items()}
    result = tfptq.quantize_keras_model(model, samples, progress=False)
    (outputs,) = run_decoded(result.tflite, samples).values()
    assert signal_to_noise(model.predict(samples, verbose=0), outputs) > 25.0


def test_all_samples_count():
    """The first pictures are grey: their channels would not fill the grid."""
    inputs = keras.Input((4, 4, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(2, 1)(layers.Rescaling(1 / 127.5, -1.0)(inputs)))
    grey, others = np.full((32, 4, 4, 3), 128.0, np.float32), RNG.uniform(0, 255, (32, 4, 4, 3)).astype(np.float32)
    assert input_normalizations_to_keep(model, [{"image": grey}]) and not input_normalizations_to_keep(
        model, [{"image": grey}, {"image": others}]
    )


@pytest.mark.parametrize(
    ("shape", "head", "values"),
    [
        ((None,), lambda x: layers.Rescaling(1.0, -280.0)(x), 280.0),
        ((3,), lambda x: layers.Rescaling(1e-22)(x), 1e22),
        ((3,), lambda x: x * np.float32([1.0, -1e-3, 1.0]), 1.0),
    ],
    ids=["open size", "huge", "negative"],
)
def test_what_no_layer_normalizes_stays_as_it_is(shape, head, values):
    inputs = keras.Input(shape, name="x")
    model = keras.Model(inputs, head(inputs))
    data = np.full((4, 3), values, np.float32) * RNG.uniform(0.9, 1.1, (4, 3)).astype(np.float32)
    assert not input_normalizations_to_keep(model, [{"x": data}])


def test_half_precision_models_normalize_in_float32():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = table_network(normalization)
        result = tfptq.quantize_keras_model(model, TABLE, "w8a8_channel", progress=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [item.operator for item in result.report.float_operators] == ["SUB", "MUL"]
    assert min(result.report.outputs.values()) > 25.0


def test_channels_that_are_scaled_apart_and_together_again():
    """The grid between the two would be too coarse for the small ones, although that of the input is not."""
    apart = np.asarray([1.0, 300.0, 0.2, 0.02], np.float32)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), name="x")
    normalize = layers.Normalization(mean=apart * 0.5, variance=apart**2)
    model = keras.Model(inputs, layers.Dense(3)(normalize(inputs * apart)))
    samples = RNG.normal(size=(300, 4)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, samples, "w8a8_channel", progress=False)
    found = next(iter(run_decoded(result.tflite, {"x": samples}).values()))
    assert signal_to_noise(model.predict(samples, verbose=0), found) > 35
    assert all("differ too much for one grid" in item.reason for item in result.report.float_operators)
