"""Measurements as a value: shards add up to what one pass finds, and files give them back."""

from functools import reduce
from operator import add

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfptq.config import Calibration
from tfptq.fit.measure import measure
from tfptq.fit.measurement_files import load_measurements, save_measurements
from tfptq.float_file.build import make_float_file
from tfptq.pipeline.steps import kernel_views

CALIBRATION = Calibration()


@pytest.fixture(scope="module")
def float_file():
    """A convolution, and a softmax with a mask of which only a part counts."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2), name="x")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inputs)
    y = layers.Dense(6, name="dense")(layers.Flatten()(y))
    y = layers.Softmax()(y + np.array([0, 0, 0, 0, 0, -1e9], np.float32))
    model = keras.Model(inputs, y)
    return make_float_file(model, kernel_views(model))


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(0.0, 1.0 + at, (3, 6, 6, 2)).astype(np.float32)} for at in range(8)]


@pytest.fixture(scope="module")
def parts(float_file, batches):
    return [measure(float_file, [batch], CALIBRATION) for batch in batches]


@pytest.fixture(scope="module")
def whole(float_file, batches):
    return measure(float_file, batches, CALIBRATION)


def assert_equal(found, expected, float_file, exactly=True):
    assert found.samples == expected.samples and found.clipped == expected.clipped
    for bits in (8, 16):
        assert found.ranges(CALIBRATION, bits) == expected.ranges(CALIBRATION, bits)
    for use in float_file.uses:
        tolerance = 0.0 if exactly else 1e-13
        np.testing.assert_allclose(found.mean_input(use), expected.mean_input(use), rtol=tolerance, atol=tolerance)


@settings(max_examples=20)
@given(order=st.permutations(range(8)), cut=st.integers(1, 7))
def test_shards_add_up_in_any_order(float_file, parts, whole, order, cut):
    one, other = ([parts[at] for at in share] for share in (order[:cut], order[cut:]))
    assert_equal(reduce(add, one) + reduce(add, other), whole, float_file, exactly=False)


def test_something_is_cut_off(whole):
    assert whole.clipped and len(whole.statistics) <= len(whole.tensors)


def test_files_give_them_back(float_file, whole, parts, tmp_path):
    loaded = load_measurements(save_measurements(whole, tmp_path / "all.npz"))
    assert_equal(loaded, whole, float_file)
    assert_equal(loaded + parts[0], whole + parts[0], float_file)


def test_measurements_of_other_files_do_not_add_up(parts):
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(2)])
    other = make_float_file(model, kernel_views(model))
    found = measure(other, [{"x": np.ones((2, 2), np.float32)}], CALIBRATION)
    with pytest.raises(ValueError, match="of two float files"):
        parts[0] + found


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_are_refused_or_equal(float_file, parts, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "part.npz"
    content = bytearray(save_measurements(parts[0], path).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = load_measurements(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert_equal(found, parts[0], float_file)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="other.npz holds no measurements of tfptq"):
        load_measurements(path)
