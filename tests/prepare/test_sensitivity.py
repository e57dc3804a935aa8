"""What the change of a weight adds to the error of the outputs, against what it does when it is made."""

import keras
import numpy as np
import pytest
from keras import layers

from tfptq.prepare.sensitivity import output_errors

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="x")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, activation="relu", name="deep")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, [layers.Dense(5, name="scores")(x), 50.0 * layers.Dense(1, name="value")(x)])


def samples(count=32, shape=(8, 8, 3)):
    return [{"x": np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)}]


def changes_of(model, names, size):
    """Random changes of kernels, in units of their root mean square."""
    rng, found = np.random.default_rng(2), {}
    for name in names:
        kernel = model.get_layer(name).kernel
        values = keras.ops.convert_to_numpy(kernel)
        found[name] = [(kernel, (size * values.std() * rng.normal(size=values.shape)).astype(np.float32))]
    return found


def measured(model, batch, moved):
    """The same error as ``output_errors`` estimates, from outputs before and after; without what samples share."""

    def outputs():
        return [np.asarray(values, np.float64) for values in keras.tree.flatten(model(batch, training=False))]

    expected = outputs()
    for variable, change in moved:
        variable.assign_add(change)
    found = outputs()
    for variable, change in moved:
        variable.assign_sub(change)
    return np.mean([(b - a).var(axis=0).sum() / a.var(axis=0).sum() for a, b in zip(expected, found, strict=True)])


@pytest.mark.parametrize("name", ["conv", "deep", "scores", "value"])
@pytest.mark.parametrize("size", [1e-3, 3e-2])
def test_the_estimate_is_near_the_error_that_a_small_change_makes(model, name, size):
    batches = samples()
    changes = changes_of(model, [name], size)
    estimate = output_errors(model, batches, changes)[name]
    truth = measured(model, batches[0], changes[name])
    assert 0.5 * truth < estimate < 2.0 * truth


def test_errors_grow_with_the_square_of_the_change(model):
    (small,), (large,) = (output_errors(model, samples(), changes_of(model, ["conv"], it)).values() for it in (1, 3))
    assert large == pytest.approx(9 * small, rel=1e-4)


def test_several_weights_move_together(model):
    changes = changes_of(model, ["conv", "deep"], 1e-3)
    together = {"both": [*changes["conv"], *changes["deep"]]}
    estimate = output_errors(model, samples(), together)["both"]
    truth = measured(model, samples()[0], together["both"])
    assert 0.5 * truth < estimate < 2.0 * truth


def test_outputs_count_alike_whatever_their_size(model):
    """Noise as large as an output takes up the half of two of them."""
    for name in ("scores", "value"):
        kernel = model.get_layer(name).kernel
        whole = {name: [(kernel, keras.ops.convert_to_numpy(kernel))]}
        assert output_errors(model, samples(), whole)[name] == pytest.approx(0.5, rel=0.4)


def test_no_change_is_no_error_and_outputs_that_do_not_depend_are_not_changed(model):
    kernel = model.get_layer("conv").kernel
    assert output_errors(model, samples(), {"none": [(kernel, np.zeros(kernel.shape, np.float32))]}) == {"none": 0.0}
    assert output_errors(model, samples(), {}) == {}


def test_the_same_seed_gives_the_same_numbers(model):
    changes = changes_of(model, ["conv", "scores"], 1e-2)
    first = output_errors(model, samples(), changes, seed=3)
    assert output_errors(model, samples(), changes, seed=3) == first
    assert output_errors(model, samples(), changes, seed=4) != first


def test_progress_and_the_number_of_samples(model):
    seen = []
    batches = samples(20) + samples(20)
    few = output_errors(model, batches, changes_of(model, ["conv"], 1e-2), advance=seen.append)
    assert seen == [1] * 32
    first = [{"x": np.concatenate([batch["x"] for batch in batches])[:32]}]
    assert output_errors(model, first, changes_of(model, ["conv"], 1e-2)) == pytest.approx(few)


def test_one_sample_is_enough(model):
    batches = samples(1)
    changes = changes_of(model, ["conv"], 1e-2)
    assert 0.0 < output_errors(model, batches, changes)["conv"] < 1.0


def test_as_many_outputs_as_directions_are_exact():
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, [layers.Dense(2, name="a")(inputs), layers.Dense(2, name="b")(inputs)])
    batches = samples(shape=(6,))
    for changes in (changes_of(model, [name], 0.1) for name in ("a", "b")):
        ((name, estimate),) = output_errors(model, batches, changes).items()
        assert estimate == pytest.approx(measured(model, batches[0], changes[name]), rel=1e-4)


def test_what_all_samples_share_is_left_out():
    """A change that only moves the mean of the output: the bias takes that up."""
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, layers.Dense(1, name="dense")(inputs))
    kernel = model.get_layer("dense").kernel
    kernel.assign([[0.0], [1.0]])
    x = np.stack([np.ones(32), RNG.normal(size=32)], axis=1).astype(np.float32)
    moved = {"mean": [(kernel, np.float32([[1.0], [0.0]]))], "rest": [(kernel, np.float32([[0.0], [0.1]]))]}
    found = output_errors(model, [{"x": x}], moved)
    assert found["mean"] < 1e-10 and found["rest"] == pytest.approx(0.01, rel=1e-3)


def test_outputs_that_are_no_numbers_or_never_change_say_nothing():
    inputs = keras.Input((6,), name="x")
    x = layers.Dense(4, name="dense")(inputs)
    model = keras.Model(inputs, [x, keras.ops.argmax(x, axis=-1), keras.ops.sum(keras.ops.softmax(x), axis=-1)])
    found = output_errors(model, samples(shape=(6,)), changes_of(model, ["dense"], 1e-2))["dense"]
    assert 0.0 < found < 1e-3


def test_a_fixed_batch_and_inputs_by_name():
    left, right = keras.Input((6,), batch_size=4, name="left"), keras.Input((6,), batch_size=4, name="right")
    x = layers.Dense(4, name="dense")(left - 2.0 * right)
    model = keras.Model({"left": left, "right": right}, {"out": layers.Reshape((2, 2))(x)})
    batch = {name: RNG.normal(size=(16, 6)).astype(np.float32) for name in ("right", "left")}
    changes = changes_of(model, ["dense"], 1e-2)
    estimate = output_errors(model, [batch], changes)["dense"]
    assert 2e-5 < estimate < 5e-4
