import keras
import numpy as np
import pytest
from cancelling_networks import difference_of_branches
from graph_models import batch_for
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfptq.core.channel_graph import Change
from tfptq.core.channel_moves import Scales
from tfptq.graph import FloatEqualityError, canonicalise, channel_groups, check_float_equal, move_channels
from tfptq.graph.float_equality import model_outputs, rounding_noise
from tfptq.graph.float_noise import rounding_otherwise


def test_every_value_moves_by_a_step_at_most_and_zero_stays():
    inputs = keras.Input((1000,), name="x")
    model = keras.Model(inputs, [inputs * 1.0, layers.ReLU()(inputs)])
    x = np.random.default_rng(0).uniform(-1.0, 1.0, size=(1, 1000)).astype(np.float32)
    for expected, found in zip(model_outputs(model, x), model_outputs(rounding_otherwise(model), x), strict=True):
        moved = found != expected
        assert 0.5 < moved.sum() / (expected != 0).sum() < 0.9  # twice on the way, half of the values each time
        assert np.abs(found - expected).max() < 2**-21 and not found[expected == 0].any()
        assert (np.abs(found) <= np.abs(expected)).all()


def test_calls_differ_and_copies_do_not():
    model = difference_of_branches(1e5)
    batch = batch_for(model)
    copies = [rounding_otherwise(model) for _ in range(2)]
    (first, second), (again, _) = ([model_outputs(copy, batch)[0] for _ in range(2)] for copy in copies)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


def test_integers_masks_and_several_calls_of_a_layer():
    inputs = keras.Input((5,), dtype="int32", name="tokens")
    shared = layers.Dense(4, name="shared")
    x = layers.LSTM(4, name="lstm")(layers.Embedding(9, 4, mask_zero=True)(inputs))
    model = keras.Model(inputs, shared(shared(x)))
    tokens = {"tokens": np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]], np.int32)}
    assert 0.0 <= max(rounding_noise(model, tokens)) < 1e-5


def test_noise_is_of_each_output():
    model = difference_of_branches(1e5)
    sound = layers.Dense(2, name="sound")(model.input)
    first, second = rounding_noise(keras.Model(model.input, [model.output, sound]), batch_for(model, 8))
    assert first > 1e-3 and second < 1e-6


def test_values_that_leave_their_domain_say_nothing():
    """One step below 1, the root is one of a negative number."""
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, keras.ops.sqrt(inputs - 1.0))
    assert np.isfinite(rounding_noise(model, {"x": np.ones((2, 8), np.float32)})).all()


@keras.saving.register_keras_serializable("test_float_noise")
class Restless(layers.Layer):
    """Random at inference."""

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), stddev=0.1)

    def compute_output_shape(self, input_shape):
        return input_shape


def test_randomness_is_not_taken_for_rounding():
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, layers.Dense(3)(Restless(name="restless")(inputs)))
    assert rounding_noise(model, batch_for(model)) == [0.0]
    with pytest.raises(FloatEqualityError, match="a layer that is random at inference"):
        check_float_equal(model, canonicalise(model), batch_for(model))


@settings(max_examples=6)
@given(st.sampled_from([0.0, 1e2, 1e4, 1e6]), st.integers(0, 2**32 - 1))
def test_scaled_channels_pass_however_much_cancels_and_a_wrong_factor_does_not(offset, seed):
    keras.utils.set_random_seed(seed)
    model = canonicalise(difference_of_branches(offset))
    random, groups = np.random.default_rng(seed), channel_groups(model, Change.SCALE)
    factors = {group.index: np.exp(random.uniform(-2, 2, group.size)) for group in groups.groups}
    scaled, batch = move_channels(model, Scales(groups, factors)), batch_for(model, 8)
    check_float_equal(model, scaled, batch)
    if offset < 1e6:  # where rounding moves the output by a tenth, no error of that size can be told
        kernel = scaled.get_layer("narrow").kernel
        kernel.assign(keras.ops.multiply(kernel, random.permuted([3.0] + [1.0] * 15)[:, None]))
        with pytest.raises(FloatEqualityError, match="differs from 'cancelling' in 'head'"):
            check_float_equal(model, scaled, batch)
