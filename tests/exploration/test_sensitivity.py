import dataclasses

import keras
import numpy as np
import pytest
from plain_config import plain_config

import tfptq
from tfptq.base.progress import Progress
from tfptq.core.blocks import quantize_nearest
from tfptq.exploration.partial_files import PartialFiles
from tfptq.exploration.sensitivity import LayerSensitivity, Sensitivities
from tfptq.layers import weight_specs
from tfptq.prepare.network import prepare
from tfptq.tflite.inspect import inspect

#: Rounded to nearest, so that statistics and files speak of the same codes.
NEAREST = plain_config(tfptq.PerChannel(), weight_bits=4, edge_bits=None, bias_correction=False)
ROWS = Sensitivities(
    "net", (LayerSensitivity("stem_1", 8, 1000, 40.25), LayerSensitivity("head", 4, 90, 12.0, 20.5, True))
)


def test_statistics_tell_what_rounded_weights_do(digits, digits_convnet):
    found = tfptq.layer_sensitivity(digits_convnet, digits.x_train[:64], NEAREST, progress=False)
    network = prepare(digits_convnet, digits.x_train[:64], NEAREST, 0, Progress(False))
    assert [row.layer for row in found] == [layer.name for layer in network.model.layers if layer.weights]
    outputs = network.model.predict(digits.x_test, verbose=0)
    for row in found:
        (spec,) = weight_specs(network.model.get_layer(row.layer))
        view, own = spec.values(), network.config.for_layer(row.layer)
        codes = quantize_nearest(view, own.scales_of(view), own.weight_bits)
        before = spec.variable.numpy()
        spec.variable.assign(spec.view.from_view(codes.dequantize()))
        moved = network.model.predict(digits.x_test, verbose=0) - outputs
        spec.variable.assign(before)
        noise = np.var(moved, axis=0).sum() / np.var(outputs, axis=0).sum()
        assert row.alone_db == pytest.approx(-10 * np.log10(noise), abs=4), row
        assert (row.measured, row.rest_db, row.bits, row.weights) == (False, None, own.weight_bits, view.size)


def test_a_layer_that_no_gradient_reaches_is_measured():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, name="hidden")(inputs)
    outputs = keras.layers.Dense(3, name="head")(keras.ops.round(4 * hidden))
    samples = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    found = {row.layer: row for row in tfptq.layer_sensitivity(keras.Model(inputs, outputs), samples, NEAREST)}
    assert found["hidden"].measured and not found["head"].measured
    assert 5 < found["hidden"].alone_db < 40


def test_kernels_of_a_file_are_measured():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(40, "relu")(inputs)))
    samples = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    content = tfptq.quantize(model, samples, NEAREST, progress=False).float_tflite
    found = tfptq.layer_sensitivity(content, samples, NEAREST, progress=False)
    assert [row.weights for row in found] == [240, 120] and all(row.measured for row in found)
    assert all(5 < row.alone_db < 40 and 5 < row.rest_db < 40 for row in found)


def test_files_with_one_layer_and_with_all_but_one(digits, digits_convnet):
    network = prepare(digits_convnet, digits.x_train[:32], NEAREST, 0, Progress(False))
    files = PartialFiles.of(network, NEAREST, 0, Progress(False))
    kernels = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}

    def kinds(content):
        rows = [row for row in inspect(content).operators if row.operator in kernels]
        return {kind: sum(row.count for row in rows if row.type.startswith(kind)) for kind in ("INT8", "FLOAT32")}

    count = len(files.layers)
    assert kinds(files.only("stem")) == {"INT8": 1, "FLOAT32": count - 1}
    assert kinds(files.all_but("stem")) == {"INT8": count - 1, "FLOAT32": 1}


def test_measured_files(digits, digits_convnet):
    config = tfptq.QuantizationConfig.from_preset("w4a8_channel")
    found = tfptq.layer_sensitivity(digits_convnet, digits.x_train[:64], config, measured=True, progress=False)
    statistics = tfptq.layer_sensitivity(digits_convnet, digits.x_train[:64], config, progress=False)
    assert [row.layer for row in found] == [row.layer for row in statistics]
    assert [(row.bits, row.weights) for row in found] == [(row.bits, row.weights) for row in statistics]
    whole = tfptq.quantize_keras_model(digits_convnet, digits.x_train[:64], config, progress=False)
    least = min(row.alone_db for row in found)
    for row in found:
        assert row.measured and row.alone_db > 10 and row.rest_db > 10
    assert least > whole.report.outputs["output_0"] - 6
    assert {row.layer for row in found.worst_first[:3]} & {row.layer for row in statistics.worst_first[:3]}


def test_skipped_layers_are_left_out(digits, digits_dense):
    config = NEAREST.replace(overrides=[tfptq.override("hidden", skip=True)])
    for measured in (False, True):
        found = tfptq.layer_sensitivity(digits_dense, digits.x_train[:32], config, measured=measured, progress=False)
        assert [row.layer for row in found] == ["probabilities"]


def test_forms():
    assert str(ROWS).splitlines() == [
        "net: signal to noise of the outputs",
        "layer   bits   weights  alone, dB  rest, dB",
        "stem_1     8     1,000       40.2",
        "head       4        90       12.0      20.5",
    ]
    assert [row.layer for row in ROWS.worst_first] == ["head", "stem_1"] and len(ROWS) == 2
    assert Sensitivities.from_json(ROWS.to_json()) == ROWS
    exact = dataclasses.replace(ROWS, layers=(dataclasses.replace(ROWS.layers[0], alone_db=float("inf")),))
    assert Sensitivities.from_json(exact.to_json()) == exact
