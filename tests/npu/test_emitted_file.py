"""The executor on a file that the whole pipeline made: every layer of a trained network, bit for bit."""

import keras
import numpy as np
import pytest
from plain_config import plain_config

import tfptq
from tfptq.core.affine import WEIGHT_BITS
from tfptq.npu import Executor, compare_with_stock


def test_every_layer_of_an_emitted_file_equals_the_stock_kernels(digits, digits_convnet):
    result = tfptq.quantize_keras_model(digits_convnet, digits.x_train[:64], "w8a8_shift", progress=False)
    described = tfptq.inspect(result.tflite).weights
    executor = Executor(result.tflite)
    assert executor.skipped == {}
    comparisons = compare_with_stock(result.tflite, digits.x_test[:20])
    assert [comparison.run.name for comparison in comparisons] == [row.layer for row in described]
    for comparison in comparisons:
        assert comparison.equal, comparison.run.name
        assert comparison.run.multipliers == 1
        assert np.unique(comparison.run.output).size > 10
    assert len(tfptq.verify(result.tflite).checks) >= 2 * len(described)


@pytest.mark.parametrize("scaler", ["integer", "shift"])
@pytest.mark.parametrize("bits", WEIGHT_BITS)
def test_blocks_of_every_width_equal_the_stock_kernels(digits, digits_convnet, bits, scaler):
    config = plain_config(tfptq.PerBlock(2, 4), scaler, bits, edge_bits=None, weight_scale="mse", layout="int8")
    result = tfptq.quantize_keras_model(digits_convnet, digits.x_train[:64], config, progress=False)
    assert {layer.bits for layer in result.report.layers} == {bits}
    for comparison in compare_with_stock(result.tflite, digits.x_test[:20]):
        assert comparison.equal, comparison.run.name
    tfptq.verify(result.tflite)


def test_an_operator_without_a_reference_kernel_is_named():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(6, activation="elu")(inputs)))
    samples = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    file = tfptq.quantize_keras_model(model, samples, "w8a8_channel", progress=False).tflite
    with pytest.raises(ValueError, match=r"no reference kernel for ELU.*Executor\(file\).run_layer"):
        compare_with_stock(file, samples)
