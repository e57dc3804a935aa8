"""Float Keras model -> float ``.tflite``: the skeleton that the emitter fills with integers.

The batch stays dynamic where the converter can do that. It cannot for the loops of recurrent layers, whose lists of
states need a known size; models with such layers are converted for one sample at a time.
"""

import contextlib
import io
import logging
import tempfile
import warnings

import keras
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

#: The operator that the converter names when the states of a loop have a dynamic batch.
STATE_LIST = "TensorListReserve"


def convert_float(model: keras.Model) -> bytes:
    """Convert a Keras model to a float ``.tflite`` with the stock converter, quietly.

    The batch of the file is that of the model; it is 1 where the model leaves it open and has recurrent layers.

    Args:
        model: Keras 3 model.

    Returns:
        The file's bytes. Names of tensors and signatures are the converter's.

    Raises:
        ValueError: the converter refuses the model; its own words are in the message.
    """
    try:
        return _convert(model)
    except ValueError as error:
        if STATE_LIST not in str(error) or any(tensor.shape[0] is not None for tensor in model.inputs):
            raise
    return _convert(_with_batch_of_one(model))


def _convert(model: keras.Model) -> bytes:
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            return _converter(model, folder).convert()
        except (ValueError, RuntimeError, tf.errors.OpError, ConverterError) as error:
            raise ValueError(
                f"the TFLite converter cannot convert the model {model.name!r}: {error}. "
                "Replace the layers it names, or set their computation outside of the model."
            ) from error


def _converter(model: keras.Model, folder: str) -> tf.lite.TFLiteConverter:
    """The stock converter; ``from_keras_model`` of TensorFlow 2.16 aborts on Keras 3, a saved model does not."""
    major, minor = map(int, tf.__version__.split(".")[:2])
    if (major, minor) > (2, 16):
        return tf.lite.TFLiteConverter.from_keras_model(model)
    model.export(folder)
    return tf.lite.TFLiteConverter.from_saved_model(folder)


def _with_batch_of_one(model: keras.Model) -> keras.Model:
    """The same model, sharing its weights, for batches of one sample."""
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=(1, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name),
        model.input,
    )
    return keras.Model(inputs, model(inputs), name=model.name)


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
