"""Float Keras model -> float ``.tflite``: the skeleton that the emitter fills with integers."""

import contextlib
import io
import logging
import warnings

import keras
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError


def convert_float(model: keras.Model) -> bytes:
    """Convert a Keras model to a float ``.tflite`` with the stock converter, quietly.

    Args:
        model: Keras 3 model.

    Returns:
        The file's bytes. Names of tensors and signatures are the converter's.

    Raises:
        ValueError: the converter refuses the model; its own words are in the message.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    with _quiet():
        try:
            return converter.convert()
        except (ValueError, RuntimeError, tf.errors.OpError, ConverterError) as error:
            raise ValueError(
                f"the TFLite converter cannot convert the model {model.name!r}: {error}. "
                "Replace the layers it names, or set their computation outside of the model."
            ) from error


@contextlib.contextmanager
def _quiet():
    """Hold back the export's printed summary and the converter's log lines."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
