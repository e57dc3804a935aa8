"""Float files of an open batch, for one sample at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import tfptq
from tfptq.float_file.convert import convert_float
from tfptq.float_file.file_model import tflite_model
from tfptq.float_file.fixed_batch import with_batch_of_one
from tfptq.tflite.model import TFLiteModel

CONFIG = tfptq.QuantizationConfig.from_preset("w8a8_channel")


def network():
    """Flattens, repeats and splits by sizes that follow from the batch."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8), name="x")
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.Conv1D(4, 3)(x)
    x = layers.Lambda(lambda x: tf.concat([x, tf.ones((tf.shape(x)[0], 1, 4))], axis=1))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


SAMPLES = np.random.default_rng(0).normal(size=(32, 6, 8)).astype(np.float32)


def test_shapes_are_constants_and_results_stay():
    model = tflite_model(convert_float(network()))
    fixed = with_batch_of_one(model)
    assert model.float_file.batch_size is None and fixed.float_file.batch_size == 1
    assert [each.shape for each in fixed.inputs] == [(1, 6, 8)]
    file = TFLiteModel(fixed.float_file.data)
    kinds = {file.operator_name(operator) for operator in file.operators}
    assert not kinds & {"SHAPE", "PACK", "FILL", "GATHER"}
    assert all(-1 not in file.sizes(index) for operator in file.operators for index in operator.outputs)
    np.testing.assert_allclose(fixed.run({"x": SAMPLES})[0], network()(SAMPLES), atol=1e-5)
    assert with_batch_of_one(fixed) is fixed


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"target": "micro"}], ids=str)
def test_configs_of_one_sample_reach_files(changes):
    result = tfptq.quantize(convert_float(network()), SAMPLES, CONFIG.replace(**changes), progress=False)
    (entry,) = Interpreter(model_content=result.tflite).get_input_details()
    assert entry["shape"].tolist() == entry["shape_signature"].tolist() == [1, 6, 8]
    assert min(result.report.outputs.values()) > 20
