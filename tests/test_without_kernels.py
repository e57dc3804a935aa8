"""Models without a kernel, and with kernels that are the weights of no layer."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from stock_runtimes import run, signal_to_noise

import tfptq
from tfptq.config import QuantizationConfig

SAMPLES = np.random.default_rng(0).random((60, 8, 8, 3)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)


def quantized(build, config="w8a8_channel"):
    """(result, signal to noise in dB)."""
    inputs = keras.Input((8, 8, 3), name="x")
    model = keras.Model(inputs, build(inputs))
    result = tfptq.quantize_keras_model(model, SAMPLES, config, progress=False)
    found = [next(iter(run(result.tflite, {"x": sample[None]}).values())) for sample in SAMPLES]
    return result, signal_to_noise(model.predict(SAMPLES, verbose=0), np.concatenate(found))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: layers.Rescaling(2.0, -1.0)(x),
        lambda x: layers.Softmax()(layers.GlobalAveragePooling2D()(x)),
        lambda x: layers.UpSampling2D()(layers.MaxPooling2D()(x)),
        lambda x: layers.Reshape((64, 3))(x),
    ],
    ids=["scale", "pool", "sample", "move"],
)
def test_without_kernels(build):
    result, ratio = quantized(build)
    assert ratio > 38
    assert not result.report.float_operators and not result.report.layers
    (note,) = result.report.notes
    assert "no kernel" in note and "register" not in note and not result.report.warnings


def test_weights_that_nobody_knows_are_named():
    result, ratio = quantized(lambda x: layers.GRU(3, name="memory")(layers.Reshape((8, 24))(x)))
    assert ratio > 60  # in float
    assert [layer.name for layer in result.report.skipped] == ["memory"]
    assert any("memory (GRU) with tfptq.layers.register" in warning for warning in result.report.notes)


@pytest.mark.parametrize(
    "build",
    [
        lambda x: ops.conv(x, KERNEL, padding="same"),
        lambda x: ops.mean(ops.relu(ops.conv(x, KERNEL)), axis=(1, 2)),
        lambda x: ops.depthwise_conv(x, KERNEL[..., :1]),
        lambda x: ops.matmul(ops.mean(x, axis=(1, 2)), KERNEL[0, 0]),
    ],
    ids=["convolution", "fused", "depthwise", "matmul"],
)
@pytest.mark.parametrize(("preset", "bits", "least"), [("w8a8_channel", 8, 38), ("w4a8_block", 4, 13)])
def test_kernels_of_operations(build, preset, bits, least):
    result, ratio = quantized(build, QuantizationConfig.from_preset(preset).replace(target="any"))
    assert ratio > least
    (layer,) = result.report.layers
    assert layer.bits == bits and layer.type == "kernel of the file"
    assert not result.report.float_operators
