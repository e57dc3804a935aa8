"""A float file run in TensorFlow gives what LiteRT gives, operator kind by operator kind."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfptq.float_file.build import make_float_file
from tfptq.graph import canonicalise
from tfptq.ops.tensorflow import can_run, run_operator
from tfptq.pipeline.steps import kernel_views
from tfptq.tflite.runtime import TensorRunner

rows = layers.Reshape((64, 4))
NETWORKS = {
    "convolution": lambda x: layers.Conv2D(5, 3, strides=2, padding="same", activation="relu6")(x),
    "dilated": lambda x: layers.Conv2D(5, 3, dilation_rate=2, padding="same")(x),
    "grouped": lambda x: layers.Conv2D(6, 3, groups=2)(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x),
    "transposed": lambda x: layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x),
    "transposed valid": lambda x: layers.Conv2DTranspose(5, 2, strides=2)(x),
    "one dimension": lambda x: layers.Conv1D(5, 3, strides=2)(rows(x)),
    "dense": lambda x: layers.Dense(5, activation="relu")(layers.Flatten()(x)),
    "dense on pixels": lambda x: layers.Dense(5)(x),
    "pooling": lambda x: layers.AveragePooling2D(3, 2, padding="same")(layers.MaxPooling2D(2, 1)(x)),
    "global pooling": lambda x: layers.GlobalAveragePooling2D()(x) + layers.GlobalMaxPooling2D()(x),
    "padding": lambda x: layers.ZeroPadding2D(1)(x),
    "cropping": lambda x: layers.Cropping2D(((1, 0), (2, 1)))(x),
    "nearest": lambda x: layers.UpSampling2D(2)(x),
    "bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "layer normalization": lambda x: layers.LayerNormalization()(x),
    "attention": lambda x: layers.MultiHeadAttention(2, 3)(rows(x), rows(x)),
    "permutation": lambda x: layers.Permute((2, 3, 1))(x),
    "concatenation": lambda x: layers.Concatenate()([x, 2.0 * x]),
    "excitation": lambda x: x * layers.Dense(4, activation="sigmoid")(ops.mean(x, axis=(1, 2), keepdims=True)),
    "arithmetic": lambda x: ops.exp(-ops.abs(x)) / (1.0 + ops.square(x)) - ops.sum(x, axis=-1, keepdims=True),
    "roots": lambda x: ops.sqrt(1.0 + x * x) + ops.rsqrt(2.0 + x * x),
    "PReLU": lambda x: layers.PReLU(alpha_initializer="normal", shared_axes=[1, 2])(x),
    **{
        name: lambda x, name=name: layers.Activation(name)(x)
        for name in ("elu", "gelu", "silu", "hard_silu", "hard_sigmoid", "softmax", "leaky_relu", "tanh")
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_tensorflow_gives_what_litert_gives(name):
    inputs = keras.Input((8, 8, 4), name="image")
    hidden = layers.Conv2D(4, 1, use_bias=True, bias_initializer="normal")(inputs)
    model = canonicalise(keras.Model(inputs, NETWORKS[name](hidden)))
    float_file = make_float_file(model, kernel_views(model))
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float32)
    (source,), (target,) = float_file.inputs.values(), float_file.outputs
    values = {source: images}
    for operator in float_file.model.operators:
        assert can_run(float_file.model, operator), float_file.model.operator_name(operator)
        values[operator.outputs[0]] = run_operator(float_file.model, operator, values)
    expected = TensorRunner(float_file.data, [target]).values({float_file.model.name(source): images})
    assert values[target].shape == expected[target].shape
    np.testing.assert_allclose(values[target], expected[target], rtol=1e-4, atol=1e-5)
