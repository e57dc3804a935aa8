"""What a BatchNormalization leaves behind becomes a depthwise convolution."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from keras import layers
from plain_config import plain_config

import tfptq
from tfptq.config import PerChannel
from tfptq.float_file.channel_affines import affines_as_depthwise
from tfptq.float_file.convert import convert_float
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner

RELU = schema.ActivationFunctionType.RELU
SCALE, SHIFT = np.float32([2.0, -1.0, 0.5]), np.float32([1.0, 2.0, -3.0])


def affine(shape=(1, 4, 4, 3), scale=SCALE, shift=SHIFT, taps=(), fused=0):
    """``ABS``, a product and a sum; ``taps`` are the results that leave the file, too."""
    graph = FloatModel()
    x = graph.add("ABS", [graph.input("x", shape)], shape)
    y = graph.add("MUL", [x, graph.constant("scale", scale)], shape, "product", schema.MulOptionsT())
    options = schema.AddOptionsT(fusedActivationFunction=fused)
    total = graph.add("ADD", [y, graph.constant("shift", shift)], shape, "total", options)
    return graph.finish(total, *(y for _ in taps))


def names(model):
    return [model.operator_name(operator) for operator in model.operators]


def outputs(model, batch):
    found = TensorRunner(model, model.subgraph.outputs).values({"x": batch})
    return [found[index] for index in model.subgraph.outputs]


@pytest.mark.parametrize("fused", [0, RELU])
@pytest.mark.parametrize("leading", [(), (1, 1, 1)])
def test_a_product_and_a_sum_become_one_convolution(fused, leading):
    model = affine(scale=SCALE.reshape(*leading, 3), fused=fused)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    expected = outputs(model, x)
    assert affines_as_depthwise(model) == 1 and names(model) == ["ABS", "DEPTHWISE_CONV_2D"]
    np.testing.assert_allclose(outputs(TFLiteModel(model.to_bytes()), x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        affine(shape=(1, 4, 3)),
        affine(scale=np.float32(2.0)),
        affine(shift=np.ones((4, 4, 3), np.float32)),
        affine(taps=[1]),
    ],
    ids=["no feature map", "one number", "a number at each place", "read elsewhere"],
)
def test_others_stay(model):
    before = names(model)
    assert affines_as_depthwise(model) == 0 and names(model) == before


def test_a_network_with_normalizations_in_front_of_layers_loses_nothing_as_a_file():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 3), name="x")
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(8, 3, padding="same")(y)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    model = keras.Model(inputs, layers.Dense(4)(x))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(random.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(np.exp(random.normal(size=layer.moving_variance.shape)))
    data = random.normal(size=(32, 8, 8, 3)).astype(np.float32)
    config = plain_config(PerChannel())
    in_keras, as_file = (
        tfptq.quantize(source, data, config, progress=False).report for source in (model, convert_float(model))
    )
    assert len(in_keras.layers) == len(as_file.layers) == 7
    (ours,), (theirs,) = as_file.outputs.values(), in_keras.outputs.values()
    assert ours == pytest.approx(theirs, abs=0.3)
