"""The end of a job: files of models with a fixed number of samples."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import details

import tfptq

SAMPLES = np.random.default_rng(0).random((50, 8, 8, 3)).astype(np.float32)


def network(size, sequential):
    x = inputs = keras.Input((8, 8, 3), batch_size=size)
    stack = [layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)]
    if sequential:
        model = keras.Sequential(stack)
        model(SAMPLES[:size])
        return model
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("size", [3, 40])
def test_a_fixed_batch_larger_and_smaller_than_the_samples_of_a_report(size, sequential):
    result = tfptq.quantize_keras_model(network(size, sequential), SAMPLES, progress=False)
    (detail,) = details(result.tflite)[0].values()
    assert detail["shape_signature"].tolist() == [-1 if sequential else size, 8, 8, 3]
    assert min(result.report.outputs.values()) > 33
    assert not result.report.findings and not result.report.notes
