"""What a file gives behind its last activation function, and what the report says of it."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import RESOLVERS, run_decoded, signal_to_noise

import tfptq


@pytest.mark.parametrize(
    ("activation", "units", "offset"), [("sigmoid", 2, -7.0), ("softmax", 400, 0.0), ("tanh", 2, 0.002)]
)
def test_results_far_below_a_fixed_grid_stay_exact(activation, units, offset):
    """Rare events, many classes alike: less than a step or two of the 1/256 that a softmax has in 8 bits."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,), name="x")
    scale = 1e-3 if activation == "tanh" else 1.0
    head = layers.Dense(units, activation=activation, bias_initializer=keras.initializers.Constant(offset))
    x = layers.Rescaling(scale)(layers.Dense(32, activation="relu")(inputs))
    model = keras.Model(inputs, head(x))
    data = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, data, progress=False)
    expected = model.predict(data, verbose=0)
    for resolver in RESOLVERS:
        (outputs,) = run_decoded(result.tflite, {"x": data}, resolver).values()
        assert signal_to_noise(expected, outputs) > 25.0
    (item,) = result.report.float_operators
    assert "steps of its fixed grid" in item.reason
    (ratio,) = result.report.outputs.values()
    assert ratio > 25.0


def test_the_report_measures_the_outputs_of_the_file():
    """Behind the last activation function, and as codes, too."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(inputs))
    data = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    for output_type in ("float32", "uint8"):
        config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(output_type=output_type)
        result = tfptq.quantize_keras_model(model, data, config, progress=False)
        (outputs,) = run_decoded(result.tflite, {"x": data}).values()
        expected = signal_to_noise(model.predict(data, verbose=0), outputs)
        assert result.report.outputs["output_0"] == pytest.approx(expected, abs=1e-2)
        assert f"outputs against float, on calibration samples, dB: output_0 {expected:.1f}" in str(result.report)


@pytest.mark.parametrize("output_type", ["float32", "int8", "uint8"])
def test_a_tensor_that_is_returned_twice_is_one_output_of_the_file(output_type):
    inputs = keras.Input((8,), name="x")
    hidden = layers.Dense(4, activation="relu")(inputs)
    outputs = layers.Dense(3)(hidden)
    model = keras.Model(inputs, {"one": outputs, "hidden": hidden, "two": outputs})
    data = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(output_type=output_type)
    result = tfptq.quantize_keras_model(model, data, config, progress=False)
    assert len(result.report.outputs) == 2 and not any("Partitioned" in name for name in result.report.outputs)
    ends = [row.name for row in tfptq.inspect(result.tflite).inputs_and_outputs if row.end == "output"]
    assert len(ends) == 3 and set(ends) <= {"one", "two", "hidden"}
    found = run_decoded(result.tflite, {"x": data})
    assert set(found) == {"one", "two", "hidden"}
    np.testing.assert_array_equal(found["one"], found["two"])
    assert signal_to_noise(model.predict(data, verbose=0)["one"], found["one"]) > 25.0


def test_outputs_far_from_zero_are_warned_of():
    """The temperature in Kelvin: good to 1 %, and no better than guessing its mean."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(1)(layers.Dense(16, activation="relu")(inputs))
    data = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    for offset, warned in ((0.0, False), (300.0, True)):
        model = keras.Model(inputs, layers.Rescaling(1.0, offset)(x))
        report = tfptq.quantize_keras_model(model, data, progress=False).report
        assert report.outputs["output_0"] > 20.0
        assert any("values are far from 0" in warning for warning in report.warnings) == warned


def test_scalar_outputs_and_outputs_that_are_not_finite():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(4, activation="softmax")(inputs)
    logarithm = keras.ops.log(x + 1e-7)
    model = keras.Model(inputs, [keras.ops.sum(x), logarithm])
    data = np.random.default_rng(0).normal(0.0, 20.0, size=(32, 8)).astype(np.float32)
    report = tfptq.quantize_keras_model(model, data, progress=False).report
    assert set(report.outputs) == {"output_0", "output_1"}
    assert report.constant_outputs == ("output_0",)  # but for float32 roundings
