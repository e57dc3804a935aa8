"""Files of a fixed batch compute no shapes: inventory of operators over the layers whose converted form has some.

What is listed as bookkeeping has no kernel on microcontrollers, no place on NPUs, or costs a copy in a browser.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops
from micro_runtime import operators, run_micro
from plain_config import plain_config
from stock_runtimes import details, run, run_decoded, signal_to_noise

import tfptq
from tfptq.config import PerChannel
from tfptq.float_file.build import make_float_file
from tfptq.graph import canonicalise
from tfptq.pipeline.steps import kernel_views

BOOKKEEPING = {
    *("SHAPE", "STRIDED_SLICE", "PACK", "EXPAND_DIMS", "SQUEEZE", "GATHER", "REDUCE_PROD", "RANGE", "FILL", "CAST"),
    *("TILE", "BROADCAST_TO", "BROADCAST_ARGS", "SELECT_V2", "SPLIT"),
}
IMAGE, SEQUENCE, VECTOR = (8, 8, 4), (16, 6), (12,)


def repeated(x):
    return layers.Dense(4)(layers.RepeatVector(7)(layers.Dense(6)(x)))


def attention(x):
    return layers.MultiHeadAttention(2, 8)(x, x)


def grouped_attention(x):
    return layers.GroupQueryAttention(8, 4, 2)(x, x)


def gated(x):
    x = layers.Conv2D(4, 1)(x)
    gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    return layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)])


LAYERS = {
    "Conv2DTranspose": (IMAGE, layers.Conv2DTranspose(8, 3, strides=2, padding="same")),
    "Conv2DTranspose valid": (IMAGE, layers.Conv2DTranspose(8, 3, strides=2)),
    "Conv1DTranspose": (SEQUENCE, layers.Conv1DTranspose(8, 3, strides=2, padding="same")),
    "RepeatVector": (VECTOR, repeated),
    "MultiHeadAttention": (SEQUENCE, attention),
    "GroupQueryAttention": (SEQUENCE, grouped_attention),
    "Attention": (SEQUENCE, lambda x: layers.Dense(4)(layers.Attention()([x, x]))),
    "Conv1D": (SEQUENCE, lambda x: layers.Conv1D(8, 3, strides=2)(layers.Conv1D(8, 3, padding="same")(x))),
    "Conv1D causal": (SEQUENCE, layers.Conv1D(8, 3, padding="causal", dilation_rate=2)),
    "SeparableConv1D": (SEQUENCE, layers.SeparableConv1D(8, 3)),
    "dilated Conv2D": (IMAGE, layers.Conv2D(8, 3, dilation_rate=2)),
    "Flatten": (IMAGE, lambda x: layers.Dense(4)(layers.Flatten()(layers.Conv2D(4, 3)(x)))),
    "Reshape": (IMAGE, lambda x: layers.Dense(4)(layers.Reshape((-1, 4))(x))),
    "Permute": (SEQUENCE, lambda x: layers.Dense(4)(layers.Permute((2, 1))(x))),
    "UpSampling1D": (SEQUENCE, lambda x: layers.UpSampling1D(2)(layers.Dense(4)(x))),
    "UpSampling2D": (IMAGE, lambda x: layers.UpSampling2D(2)(layers.Conv2D(4, 1)(x))),
    "AveragePooling1D": (SEQUENCE, lambda x: layers.AveragePooling1D(2)(layers.Dense(4)(x))),
    "TimeDistributed": (SEQUENCE, layers.TimeDistributed(layers.Dense(4))),
    "EinsumDense": (SEQUENCE, layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4))),
    "GroupNormalization": (IMAGE, lambda x: layers.GroupNormalization(2)(layers.Conv2D(4, 1)(x))),
    "squeeze and excite": (IMAGE, gated),
    "new axis": (SEQUENCE, lambda x: layers.Dense(4)(x[:, None])),
    "ops.expand_dims": (SEQUENCE, lambda x: layers.Dense(4)(ops.expand_dims(x, 1))),
    "ops.repeat": (SEQUENCE, lambda x: layers.Dense(4)(ops.repeat(x, 2, axis=1))),
    "ops.tile": (VECTOR, lambda x: layers.Dense(4)(ops.tile(x, (1, 3)))),
    "ops.matmul": (SEQUENCE, lambda x: ops.matmul(layers.Dense(4)(x), ops.transpose(layers.Dense(4)(x), (0, 2, 1)))),
}


def network(name, batch=None):
    shape, build = LAYERS[name]
    if isinstance(build, layers.Layer):
        build = type(build).from_config(build.get_config())
    inputs = keras.Input(shape, batch_size=batch, name="x")
    return keras.Model(inputs, build(inputs))


OF_SEVERAL = ("Conv2DTranspose", "RepeatVector", "MultiHeadAttention", "Conv1D", "Flatten", "UpSampling1D")


@pytest.mark.parametrize(("name", "batch"), [*((name, None) for name in LAYERS), *((name, 3) for name in OF_SEVERAL)])
def test_no_bookkeeping_is_left(name, batch):
    """Where a target fixes the batch, or the model does."""
    model = canonicalise(network(name, batch))
    found = make_float_file(model, kernel_views(model), single=batch is None)
    assert found.batch_size == (batch or 1)
    assert not BOOKKEEPING.intersection(operators(found.data))


@pytest.mark.parametrize("target", ["micro", "npu", "web"])
@pytest.mark.parametrize("name", ["RepeatVector", "GroupQueryAttention"])
def test_targets_of_one_sample_have_none(name, target):
    keras.utils.set_random_seed(0)
    model = network(name)
    x = np.random.default_rng(0).normal(size=(24, *model.input_shape[1:])).astype(np.float32)
    config = plain_config(PerChannel(), target=target)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert not BOOKKEEPING.intersection(operators(result.tflite))
    found = np.concatenate([run_decoded(result.tflite, {"x": it[None]})["output_0"] for it in x])
    assert signal_to_noise(model.predict(x, verbose=0), found) > 25.0
    if target == "micro":
        reference = np.concatenate([run(result.tflite, {"x": it[None]}, "REF")["output_0"] for it in x])
        assert np.abs(run_micro(result.tflite, x).astype(int) - reference).max() <= 2


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_batch_of_one_can_be_asked_for(batch):
    model = network("Conv2DTranspose", batch)
    x = np.random.default_rng(0).normal(size=(24, *IMAGE)).astype(np.float32)
    config = plain_config(PerChannel(), batch_size=1)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert details(result.tflite)[0]["x"]["shape_signature"].tolist() == [1, *IMAGE]
    assert not BOOKKEEPING.intersection(operators(result.tflite))
    assert not any("sample at a time" in line for line in result.report.warnings)
    assert result.report.outputs["output_0"] > 30.0


@pytest.mark.parametrize("other", [None, "tf_keras"])
def test_a_model_that_counts_on_its_batch_cannot_have_another(other):
    if other is not None:  # the converter works otherwise once it is there
        pytest.importorskip(other)
    inputs = keras.Input(IMAGE, batch_size=4, name="x")
    model = keras.Model(inputs, layers.Dense(4)(ops.reshape(layers.Conv2D(8, 3)(inputs), (4, -1))), name="counting")
    x = np.random.default_rng(0).normal(size=(8, *IMAGE)).astype(np.float32)
    with pytest.raises(ValueError, match="'counting' cannot take one sample at a time.*fixed batch of 4.*keras.Input"):
        tfptq.quantize_keras_model(model, x, plain_config(PerChannel(), batch_size=1), progress=False)
    result = tfptq.quantize_keras_model(model, x, plain_config(PerChannel()), progress=False)
    assert details(result.tflite)[0]["x"]["shape_signature"].tolist() == [4, *IMAGE]
