import keras
import numpy as np
import pytest
from keras import layers, ops
from stock_runtimes import RESOLVERS, run

import tfptq
from tfptq.graph.canonicalise import canonicalise

VALUES = np.random.default_rng(0).integers(-3, 4, (50, 4, 6, 3)).astype(np.float32)  # with equal ones


def network(build, batch=None):
    inputs = keras.Input((4, 6, 3), batch_size=batch, name="x")
    return keras.Model(inputs, build(inputs))


POSITIONS = {
    "argmax": lambda x: ops.argmax(x, -1),
    "argmax, axis kept": lambda x: ops.argmax(x, 1, keepdims=True),
    "argmin": lambda x: ops.argmin(x, 2),
    "argmin, axis kept": lambda x: ops.argmin(x, -2, keepdims=True),
}
ROLLS = {
    "roll": lambda x: ops.roll(x, 1, 1),
    "roll back": lambda x: ops.roll(x, -2, axis=2),
    "roll two axes": lambda x: ops.roll(x, (-1, 2), (1, 2)),
    "roll once around": lambda x: ops.roll(x, 6, 2),
    "roll far": lambda x: ops.roll(x, 13, 2),
}


@pytest.mark.parametrize("name", [*POSITIONS, *ROLLS])
def test_the_same_is_computed(name):
    model = network({**POSITIONS, **ROLLS}[name])
    expected = np.asarray(model(VALUES))
    np.testing.assert_array_equal(np.asarray(canonicalise(model)(VALUES)), expected)
    result = tfptq.quantize_keras_model(model, VALUES, "w8a8_channel", progress=False)
    for resolver in RESOLVERS:
        (found,) = run(result.tflite, {"x": VALUES}, resolver).values()
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=0.0 if name in POSITIONS else 0.05)


@pytest.mark.parametrize("function", [ops.argmax, ops.argmin])
@pytest.mark.parametrize("keepdims", [False, True])
def test_positions_among_all_values(function, keepdims):
    model = network(lambda x: function(x, keepdims=keepdims), batch=1)
    one = VALUES[:1]
    np.testing.assert_array_equal(np.asarray(canonicalise(model)(one)), np.asarray(model(one)))


def test_a_roll_of_all_values_stays():
    model = network(lambda x: ops.roll(x, 5), batch=1)
    np.testing.assert_array_equal(np.asarray(canonicalise(model)(VALUES[:1])), np.asarray(model(VALUES[:1])))


def test_the_classes_of_a_segmenter(tmp_path):
    keras.utils.set_random_seed(0)
    model = network(lambda x: ops.argmax(layers.Conv2D(5, 3, padding="same")(x), -1))
    result = tfptq.quantize_keras_model(model, VALUES, progress=False)
    (found,) = run(result.tflite, {"x": VALUES}).values()
    assert np.mean(found == np.asarray(model(VALUES))) > 0.95
    assert not result.report.float_operators
    result.keras_model.save(tmp_path / "simulation.keras")
    with tfptq.layers.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "simulation.keras")
    np.testing.assert_array_equal(np.asarray(loaded(VALUES)), np.asarray(result.keras_model(VALUES)))


def test_what_tflite_lacks_is_named():
    with pytest.raises(ValueError) as caught:
        tfptq.quantize_keras_model(network(lambda x: ops.cumprod(x, 1)), VALUES, progress=False)
    assert "TFLite has no operator for Cumprod (in 'functional" in str(caught.value)
    assert "\n" not in str(caught.value)
