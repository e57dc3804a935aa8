"""The TFLite converter: from a float Keras model and samples ``[N, ...]`` to the bytes of a ``.tflite`` file."""

import keras
import numpy as np
import tensorflow as tf


def float_file(model: keras.Model, x: np.ndarray | None = None) -> bytes:
    """The float network as the TFLite converter writes it."""
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def converter_int8(model: keras.Model, x: np.ndarray) -> bytes:
    """The TFLite converter's post-training quantization: int8 operators only, channel-wise weights, min-max ranges."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()
