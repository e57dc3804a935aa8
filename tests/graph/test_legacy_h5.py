"""Files as Keras 2 wrote them, made by putting its fields into files of Keras 3."""

import json

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import tfptq
from tfptq.prepare.load_model import load_model

IMAGE, SEQUENCE = (8, 8, 3), (8, 3)
#: Name -> shape of a sample, layer, and the fields that Keras 2 stored beside those of Keras 3.
LAYERS = {
    "depthwise": (IMAGE, layers.DepthwiseConv2D(3, depth_multiplier=2), {"groups": 1}),
    "depthwise 1d": (SEQUENCE, layers.DepthwiseConv1D(3), {"groups": 1, "kernel_regularizer": None}),
    "separable": (
        IMAGE,
        layers.SeparableConv2D(4, 3),
        {"groups": 1, "kernel_initializer": {}, "kernel_constraint": None},
    ),
    "transposed": (IMAGE, layers.Conv2DTranspose(4, 3, strides=2), {"groups": 1}),
    "recurrent": (SEQUENCE, layers.LSTM(4), {"time_major": False}),
    "dropout": (IMAGE, layers.SpatialDropout2D(0.5), {"trainable": True, "noise_shape": None}),
    "random": (IMAGE, layers.RandomFlip(), {"rng_type": "stateful"}),
    "in a model": (IMAGE, keras.Sequential([keras.Input(IMAGE), layers.DepthwiseConv2D(3)]), {"groups": 1}),
    "in a layer": (SEQUENCE, layers.Bidirectional(layers.GRU(3)), {"time_major": False}),
}


def save(model, path, change):
    """Save a model, and change the config in the file with ``change(config of a layer or model, class name)``."""

    def walk(value):
        if isinstance(value, dict):
            if "class_name" in value:
                change(value["config"], value["class_name"])
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            walk(item)

    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        walk(config)
        file.attrs["model_config"] = json.dumps(config)


def adding(fields, *kinds):
    return lambda config, kind: config.update(fields) if kind in kinds else None


def class_names(model):
    return [type(layer) for layer in model._flatten_layers()]


@pytest.mark.parametrize("name", LAYERS)
def test_fields_that_say_nothing_are_left_out(name, tmp_path):
    shape, layer, fields = LAYERS[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    for weight in model.weights:
        if "seed" not in weight.name:
            weight.assign(np.random.default_rng(0).uniform(0.1, 1.0, weight.shape))
    kinds = {"in a model": "DepthwiseConv2D", "in a layer": "GRU"}.get(name, type(layer).__name__)
    save(model, tmp_path / "net.h5", adding(fields, kinds))
    before = (tmp_path / "net.h5").read_bytes()
    with pytest.raises((TypeError, ValueError)):
        keras.models.load_model(tmp_path / "net.h5", compile=False)
    loaded = load_model(tmp_path / "net.h5")
    assert class_names(loaded) == class_names(model)
    samples = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_allclose(loaded(samples, training=False), model(samples, training=False), rtol=1e-5, atol=1e-6)
    assert (tmp_path / "net.h5").read_bytes() == before


@pytest.mark.parametrize(
    "layer, fields",
    [(layers.DepthwiseConv2D(3), {"groups": 3}), (layers.DepthwiseConv2D(3), {"colour": 1})],
)
def test_fields_that_say_something_are_refused(layer, fields, tmp_path):
    inputs = keras.Input(IMAGE)
    save(keras.Model(inputs, layer(inputs)), tmp_path / "net.h5", adding(fields, "DepthwiseConv2D"))
    with pytest.raises(ValueError, match=f"net.h5 cannot be read:.*{next(iter(fields))}"):
        load_model(tmp_path / "net.h5")


def test_operations_of_keras_2_are_named(tmp_path):
    inputs = keras.Input(IMAGE)
    keras.Model(inputs, layers.ReLU()(inputs)).save(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"ReLU"', '"TFOpLambda"')
    with pytest.raises(ValueError, match=r"net.h5 holds operations .* \(TFOpLambda\).*model.load_weights"):
        load_model(tmp_path / "net.h5")


def test_names_with_slashes(tmp_path):
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(4, 3, name="stem_conv")(inputs)
    x = layers.Add(name="stem_sum")([x, layers.BatchNormalization(name="stem_norm")(x)])
    model = keras.Model(inputs, x)
    model.save(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace("stem_", "stem/")
    loaded = load_model(tmp_path / "net.h5")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    samples = np.random.default_rng(1).normal(size=(2, *IMAGE)).astype(np.float32)
    np.testing.assert_allclose(loaded(samples, training=False), model(samples, training=False), rtol=1e-5)


def test_a_small_mobilenet_is_quantized(tmp_path):
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))
    save(model, tmp_path / "net.h5", adding({"groups": 1}, "DepthwiseConv2D"))
    samples = np.random.default_rng(0).normal(size=(16, *IMAGE)).astype(np.float32)
    report = tfptq.quantize_keras_model(tmp_path / "net.h5", samples, progress=False).report
    assert [layer.name for layer in report.layers] == ["stem", "depthwise", "head"]


def test_attention_of_keras_2_is_read(tmp_path):
    """Its calls name tensors, its build is for one shape, and its fields are those of calls."""
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((6, 8), name="x")
    attended = tf_keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(3)(tf_keras.layers.Add()([attended, inputs])))
    model.save(tmp_path / "net.h5")
    samples = np.random.default_rng(0).normal(size=(16, 6, 8)).astype(np.float32)
    found = load_model(tmp_path / "net.h5").predict(samples, verbose=0)
    np.testing.assert_allclose(found, model.predict(samples, verbose=0), atol=1e-5)
