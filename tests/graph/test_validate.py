import keras
import numpy as np
import pytest
from keras import layers

from tfptq.graph import canonicalise


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_subclassed_models_are_refused():
    model = Subclassed()
    model(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"subclassed model.*functional API"):
        canonicalise(model)


def test_nested_subclassed_models_are_refused_by_name():
    inputs = keras.Input((3,))
    inner = Subclassed()
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    with pytest.raises(ValueError, match=inner.name):
        canonicalise(model)


def test_a_subclass_with_a_functional_constructor_is_accepted():
    class Named(keras.Model):
        def __init__(self, inputs, outputs):
            super().__init__(inputs, outputs)

    inputs = keras.Input((3,))
    assert canonicalise(Named(inputs, layers.Dense(2)(inputs))).count_params() == 8


def test_unbuilt_models_are_refused():
    with pytest.raises(ValueError, match=r"not built.*build\(input_shape\)"):
        canonicalise(keras.Sequential([layers.Dense(2)], name="unbuilt"))


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"pass a keras.Model"):
        canonicalise("model.h5")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_named(value):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="broken")(inputs))
    model.get_layer("broken").bias.assign([0.0, value])
    with pytest.raises(ValueError, match="'bias' of layer 'broken' has 1 of 2 values"):
        canonicalise(model)


def test_quantized_keras_layers_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="dense")(inputs))
    model.quantize("int8")
    with pytest.raises(ValueError, match="'dense' is already quantized"):
        canonicalise(model)


def test_layers_that_cannot_be_copied_are_named():
    class NoConfig(layers.Layer):
        def __init__(self, table):
            super().__init__(name="no_config")
            self.table = table

        def call(self, x):
            return x + self.table

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(NoConfig(np.ones(4, np.float32))(inputs)))
    with pytest.raises(ValueError, match=r"'no_config' \(NoConfig\) has no config"):
        canonicalise(model)


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        canonicalise(None)
