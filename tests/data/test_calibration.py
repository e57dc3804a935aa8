import gc
import itertools
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.data.calibration import calibration_data
from tfptq.data.checks import InputSpec, input_specs
from tfptq.data.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4, 3)).astype(np.float32)
IDS = RNG.integers(0, 100, size=(10, 5))
LABELS = np.arange(10)


@pytest.fixture(scope="module")
def single():
    return keras.Sequential([keras.Input((4, 3), name="x"), keras.layers.Dense(2)])


@pytest.fixture(scope="module")
def double():
    x, ids = keras.Input((4, 3), name="x"), keras.Input((None,), dtype="int32", name="ids")
    summed = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(100, 3)(ids))
    return keras.Model([x, ids], keras.layers.Add()([keras.layers.Flatten()(x), keras.layers.Dense(12)(summed)]))


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(3 * index, 3 * index + 3)
        return X[part], LABELS[part]


class Endless(Pairs):
    num_batches = None


def one_by_one():
    for sample in X:
        yield [sample[None]]


def signatures():
    for sample in X:
        yield "serving_default", {"x": sample[None]}


def in_one_buffer():
    buffer = np.empty((1, 4, 3), np.float32)
    for sample in X:
        buffer[0] = sample
        yield buffer


SOURCES = {
    "array": X,
    "array and labels": (X, LABELS),
    "list": [X],
    "dict": {"x": X},
    "nested lists": {"x": X.tolist()},
    "tensor": tf.constant(X),
    "float64": X.astype(np.float64),
    "single samples": tf.data.Dataset.from_tensor_slices(X),
    "batches": tf.data.Dataset.from_tensor_slices(X).batch(4),
    "batches and labels": tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(4),
    "batches, labels, weights": tf.data.Dataset.from_tensor_slices((X, LABELS, LABELS)).batch(3),
    "named batches": tf.data.Dataset.from_tensor_slices({"x": X}).batch(3),
    "named batches and labels": tf.data.Dataset.from_tensor_slices(({"x": X}, LABELS)).batch(3),
    "PyDataset": Pairs(),
    "TFLite function": one_by_one,
    "TFLite RepresentativeDataset": tf.lite.RepresentativeDataset(one_by_one),
    "TFLite signatures": signatures,
    "function that reuses its buffer": in_one_buffer,
    "function that returns tf.data": lambda: tf.data.Dataset.from_tensor_slices(X).batch(7),
    "own iterable": type("Loader", (), {"__iter__": lambda self: iter([X[:6], X[6:]])})(),
}


@pytest.mark.parametrize("name", SOURCES)
def test_all_kinds_of_datasets_give_the_same_stream(single, name):
    data = calibration_data(single, SOURCES[name], batch_size=4)
    for _ in range(2):
        batches = list(data)
        assert [len(batch["x"]) for batch in batches] == [4, 4, 2]
        assert all(batch["x"].dtype == np.float32 for batch in batches)
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), X)
    assert data.num_samples == 10


TWO_INPUTS = {
    "list": [X, IDS],
    "tuple": (X, IDS),
    "dict": {"ids": IDS, "x": X},
    "inputs and labels": ((X, IDS), LABELS),
    "tf.data": tf.data.Dataset.from_tensor_slices(((X, IDS), LABELS)).batch(4),
    "tf.data without labels": tf.data.Dataset.from_tensor_slices((X, IDS)).batch(4),
    "tf.data by name": tf.data.Dataset.from_tensor_slices({"x": X, "ids": IDS}),
    "function": lambda: ([x[None], i[None]] for x, i in zip(X, IDS, strict=True)),
    "whole floats": {"x": X, "ids": IDS.astype(np.float32)},
}


@pytest.mark.parametrize("name", TWO_INPUTS)
def test_two_inputs(double, name):
    (batch,) = calibration_data(double, TWO_INPUTS[name])
    np.testing.assert_array_equal(batch["x"], X)
    np.testing.assert_array_equal(batch["ids"], IDS)
    assert batch["ids"].dtype == np.int32 and list(batch) == ["x", "ids"]


def test_known_samples_never_cost_a_pass(single):
    assert calibration_data(single, X).known_samples == 10
    data = calibration_data(single, one_by_one)
    assert data.known_samples is None
    assert data.num_samples == data.known_samples == 10


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(1, 12))
def test_batches_are_regrouped_without_loss(lengths, batch_size):
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    samples = np.arange(2 * sum(lengths), dtype=np.float32).reshape(-1, 2)
    pieces = np.split(samples, np.cumsum(lengths)[:-1])
    data = calibration_data(model, lambda: iter(pieces), batch_size)
    batches = [batch["x"] for batch in data]
    assert all(len(batch) == batch_size for batch in batches[:-1]) and 0 < len(batches[-1]) <= batch_size
    np.testing.assert_array_equal(np.concatenate(batches), samples)
    assert data.num_samples == len(samples)


def test_full_batches_repeat_samples_at_the_end(single):
    data = calibration_data(single, X).in_full_batches(4)
    batches = [batch["x"] for batch in data]
    np.testing.assert_array_equal(np.concatenate(batches), X[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 9]])
    assert data.num_samples == len(X)


def test_samples_of_different_sizes_do_not_share_a_batch():
    model = keras.Sequential([keras.Input((None, 2), name="x"), keras.layers.Conv1D(1, 1)])
    sizes = [3, 3, 5, 3]
    data = calibration_data(model, lambda: (np.zeros((1, size, 2)) for size in sizes), batch_size=8)
    assert [batch["x"].shape for batch in data] == [(2, 3, 2), (1, 5, 2), (1, 3, 2)]


def test_memory_does_not_grow_with_samples(single):
    def peak(samples):
        def generate():
            for _ in range(samples):
                yield np.zeros((100, 4, 3), np.float32)

        data = calibration_data(single, generate)
        gc.collect()
        tracemalloc.start()
        count = sum(len(batch["x"]) for batch in data)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 100 * samples
        return most

    peak(10)
    assert peak(1000) < 1.5 * peak(10) + 20_000


def test_integer_pixels_become_floats(single):
    pixels = RNG.integers(0, 256, size=(3, 4, 3), dtype=np.uint8)
    (batch,) = calibration_data(single, pixels)
    assert batch["x"].dtype == np.float32
    np.testing.assert_array_equal(batch["x"], pixels)


def test_the_users_array_is_not_shared(single):
    mine = X.copy()
    next(iter(calibration_data(single, mine)))["x"][:] = 7
    np.testing.assert_array_equal(mine, X)


BAD = {
    "empty array": (X[:0], "dataset is empty"),
    "empty list": ([], "the calibration dataset is empty; give at least one sample"),
    "empty tuple": ((), "the calibration dataset is empty; give at least one sample"),
    "empty stream": (lambda: iter(()), "dataset is empty"),
    "empty tf.data": (tf.data.Dataset.from_tensor_slices(X).take(0), "dataset is empty"),
    "wrong size": (X[:, :2], r"input 'x' is float32 of shape \[batch, 2, 3\].*float32 of shape \[batch, 4, 3\]"),
    "wrong rank": (X[..., None], r"input 'x' is float32 of shape \[10, 4, 3, 1\]"),
    "one sample": (X[0], r"add the batch axis with sample\[None\]"),
    "wrong size in a stream": (lambda: iter([X[:, :2]]), r"shape \[batch, 2, 3\].*resize or reshape"),
    "NaN": (np.where(X > 0, np.nan, X), "input 'x' holds NaN"),
    "infinity": (np.full_like(X, np.inf), "input 'x' holds NaN, infinity"),
    "too large": (np.full(X.shape, 1e300), "too large for float32"),
    "text": (np.full(X.shape, "a"), "input 'x' holds strings, the first 'a'.*asks for float32"),
    "objects": (np.full(X.shape, None), "input 'x' is object"),
    "complex": (X.astype(np.complex64), "input 'x' is complex64"),
    "ragged lists": ([[[1.0], [2.0, 3.0]]], "input 'x' is no array"),
    "list of samples": (list(X), r"has 1 input \(x\) .* gives 10 arrays; .*numpy.stack"),
    "unknown name": ({"y": X}, "input 'x' is missing, 'y' is no input; give an array for each input of the model"),
    "extra name": ({"x": X, "label": LABELS}, "'label' is no input"),
    "generator object": ((x for x in X), "generator, which can be read only once; pass the function"),
    "endless tf.data": (tf.data.Dataset.from_tensor_slices(X).repeat(), "does not end"),
    "endless PyDataset": (Endless(), "does not end"),
    "path": ("samples.npy", "is the path 'samples.npy'; load its samples"),
    "function without result": (lambda: None, "returned None"),
    "function with arguments": (lambda count, seed=0: X, r"function wants arguments \(count\) .*functools.partial"),
    "number": (3, "is an int; pass a numpy array"),
    "nothing": (None, "is None; pass a numpy array"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(single, name):
    dataset, message = BAD[name]
    with pytest.raises(DataError, match=message):
        calibration_data(single, dataset)


def test_refuses_a_stream_that_does_not_end(single, monkeypatch):
    monkeypatch.setattr("tfptq.data.calibration.MOST_STREAMED", 50)
    assert calibration_data(single, lambda: iter([X] * 5)).num_samples == 50
    with pytest.raises(DataError, match="does not end"):
        calibration_data(single, lambda: itertools.repeat(X)).num_samples  # noqa: B018
    assert calibration_data(single, np.repeat(X, 6, axis=0)).num_samples == 60  # an array tells its length


def test_refuses_bad_integers_and_lengths(double):
    with pytest.raises(DataError, match="input 'ids' is float64 and holds values that int32 cannot"):
        calibration_data(double, [X, IDS + 0.5])
    with pytest.raises(DataError, match="input 'ids' is int64 and holds values that int32 cannot"):
        calibration_data(double, [X, IDS + 2**40])
    with pytest.raises(DataError, match="different numbers of samples: 'x' 10, 'ids' 9"):
        calibration_data(double, [X, IDS[:9]])
    with pytest.raises(DataError, match="inputs have different numbers of samples: 'x' 10, 'ids' 9"):
        calibration_data(double, lambda: iter([[X, IDS[:9]]]))
    with pytest.raises(DataError, match=r"has 2 inputs \(x, ids\) .* gives 1 array; .*dict by input name"):
        calibration_data(double, X)


def test_refuses_a_function_that_returns_one_iterator(single):
    once = iter([X])
    with pytest.raises(DataError, match="returns the same iterator each time"):
        calibration_data(single, lambda: once)


def test_refuses_a_shorter_second_pass(single):
    left = [X, X, X[:4]]
    data = calibration_data(single, lambda: iter(left))
    list(data)
    left.pop()
    with pytest.raises(DataError, match="gave 24 samples in one pass and 20 in the next"):
        list(data)


def test_late_bad_batches_are_found_when_read(single):
    data = calibration_data(single, lambda: iter([X, np.full_like(X, np.nan)]), batch_size=5)
    with pytest.raises(DataError, match="holds NaN"):
        list(data)


def test_batch_size_must_be_positive(single):
    with pytest.raises(DataError, match="batch_size is 0"):
        calibration_data(single, X, batch_size=0)


def test_a_model_that_takes_a_dict_gets_samples_by_its_keys_or_by_the_names_of_inputs():
    left, right = keras.Input((4, 3), name="left_in"), keras.Input((4, 3), name="right_in")
    model = keras.Model({"right": right, "left": left}, keras.layers.Add()([left, 2.0 * right]))
    for names in (("left", "right"), ("left_in", "right_in")):
        (batch,) = calibration_data(model, dict(zip(names, (X, -X), strict=True)))
        np.testing.assert_array_equal(batch["left_in"], X)
        np.testing.assert_array_equal(batch["right_in"], -X)
    with pytest.raises(DataError, match="'left_in' is missing.*'left' is no input"):
        calibration_data(model, {"left": X, "right_in": X})


def test_input_specs(double):
    assert input_specs(double) == (InputSpec("x", (4, 3), "float32"), InputSpec("ids", (None,), "int32"))
    assert str(input_specs(double)[1]) == "int32 of shape [batch, any]"


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize("model", [Subclassed(name="own"), keras.Sequential([keras.layers.Dense(1)], name="own")])
def test_models_without_inputs_are_refused(model):
    with pytest.raises(DataError, match="model 'own' has no defined inputs; build it"):
        calibration_data(model, X)


@pytest.mark.parametrize(("most", "seen"), [(None, 10), (4, 4), (6, 6), (1, 2)])
def test_spread_batches_cover_the_whole_pass(most, seen):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    data = calibration_data(model, np.arange(20, dtype=np.float32).reshape(10, 2), batch_size=2)
    part = data.spread(most)
    for _ in range(2):
        batches = list(part)
        assert sum(len(next(iter(batch.values()))) for batch in batches) == seen == part.num_samples
        assert next(iter(batches[0].values()))[0, 0] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_open_sizes_are_those_of_the_samples(stream):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 1)])
    images = np.zeros((12, 512, 512, 3), np.float32)
    assert calibration_data(model, (lambda: iter(images[:, None])) if stream else images).batch_size == 4


def test_digests_tell_samples_apart():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    samples = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    digest = calibration_data(model, samples).digest()
    assert digest == calibration_data(model, lambda: iter(samples[:, None])).digest()
    samples[-1, 0] += 1.0
    assert digest != calibration_data(model, samples).digest()


GREY = np.random.default_rng(0).random((20, 8, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "dataset",
    [
        GREY,
        [GREY],
        {"grey": GREY},
        lambda: tf.data.Dataset.from_tensor_slices(GREY),
        lambda: tf.data.Dataset.from_tensor_slices(GREY).batch(7),
        lambda: iter([(GREY[:9], None), (GREY[9:], None)]),
    ],
    ids=["array", "list", "dict", "samples", "batches", "pairs"],
)
def test_samples_without_the_last_axis_of_one(dataset):
    model = keras.Model(inputs := keras.Input((8, 6, 1), name="grey"), keras.layers.Flatten()(inputs))
    if callable(dataset) and isinstance(dataset(), tf.data.Dataset):
        dataset = dataset()
    batches = list(calibration_data(model, dataset))
    np.testing.assert_array_equal(np.concatenate([batch["grey"] for batch in batches]), GREY[..., None])


def test_single_numbers_for_a_column():
    model = keras.Model(inputs := keras.Input((1,), name="number"), keras.layers.Flatten()(inputs))
    batches = list(calibration_data(model, GREY[:, 0, 0]))
    np.testing.assert_array_equal(np.concatenate([batch["number"] for batch in batches]), GREY[:, 0, :1])


@pytest.mark.parametrize(
    "dataset",
    [
        np.array(["a.png", "b.png"]),
        np.array([b"a.png"]),
        ["a.png", "b.png"],
        {"grey": ["a.png", "b.png"]},
        lambda: iter(["a.png"]),
        tf.data.Dataset.from_tensor_slices(["a.png", "b.png"]),
        tf.constant(["a.png", "b.png"]),
    ],
)
def test_strings_are_refused_by_name(dataset):
    model = keras.Model(inputs := keras.Input((8, 6, 1), name="grey"), keras.layers.Flatten()(inputs))
    with pytest.raises(DataError, match="input 'grey' holds strings, the first .*a.png.*load the files"):
        list(calibration_data(model, dataset))


def test_inputs_of_strings_are_refused_by_name():
    model = keras.Model(inputs := keras.Input((), dtype="string", name="text"), keras.layers.Identity()(inputs))
    with pytest.raises(DataError, match="input 'text' .*takes strings"):
        calibration_data(model, np.array(["a", "b"]))
