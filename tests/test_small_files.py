"""Files of a few kB: what stands beside the weights counts."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from stock_runtimes import run

import tfptq
from tfptq.tflite.model import TFLiteModel

SAMPLES = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)


def two_dense_layers():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,), name="x"), layers.Dense(8, activation="relu"), layers.Dense(4)])
    for layer in model.layers:
        layer.bias.assign(np.linspace(-1, 1, layer.units))
    return model


def test_not_larger_than_the_converter():
    model = two_dense_layers()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in SAMPLES)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    theirs = len(converter.convert())
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel")
    bare = tfptq.quantize(model, SAMPLES, config.replace(metadata="none"), progress=False).tflite
    whole = tfptq.quantize(model, SAMPLES, config, progress=False).tflite
    assert len(bare) < 0.85 * theirs and len(bare) < len(whole) <= theirs
    for left, right in zip(*(run(it, {"x": SAMPLES}).values() for it in (bare, whole)), strict=True):
        np.testing.assert_array_equal(left, right)


def test_nothing_of_the_float_file_is_left():
    model = TFLiteModel(tfptq.quantize(two_dense_layers(), SAMPLES, "w8a8_channel", progress=False).tflite)
    assert [entry.name for entry in model.root.metadata] == [b"TFPTQ_BLOCKS"]
    empty = [at for at, buffer in enumerate(model.root.buffers) if buffer.data is None]
    assert empty == [0]
