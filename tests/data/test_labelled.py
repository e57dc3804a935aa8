import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfptq.data.checks import InputSpec
from tfptq.data.errors import DataError
from tfptq.data.labelled import LabelledData

X = np.random.default_rng(0).normal(size=(10, 4, 3)).astype(np.float32)
Y = np.arange(10)
ONE = (InputSpec("x", (4, 3), "float32"),)
TWO = (*ONE, InputSpec("ids", (None,), "int32"))
IDS = np.arange(20).reshape(10, 2)


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(3 * index, 3 * index + 3)
        return X[part], Y[part]


def in_one_buffer():
    sample, label = np.empty((1, 4, 3), np.float32), np.empty(1, int)
    for sample[0], label[0] in zip(X, Y, strict=True):
        yield sample, label


def joined(data):
    batches = list(data)
    names = [set(batch.labels) for batch in batches]
    labels = {name: np.concatenate([batch.labels[name] for batch in batches]) for name in names[0]}
    inputs = {name: np.concatenate([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    return inputs, labels, [len(batch) for batch in batches]


SOURCES = {
    "arrays": (X, Y),
    "list of labels": (X, Y.tolist()),
    "named arrays": ({"x": X}, {"scores": Y}),
    "single samples": tf.data.Dataset.from_tensor_slices((X, Y)),
    "batches": tf.data.Dataset.from_tensor_slices((X, Y)).batch(3),
    "PyDataset": Pairs(),
    "one buffer": in_one_buffer,
}


@pytest.mark.parametrize("name", SOURCES)
def test_samples_and_labels_of_all_kinds_of_datasets(name):
    inputs, labels, sizes = joined(LabelledData(ONE, ["scores"], SOURCES[name], batch_size=4))
    assert np.array_equal(inputs["x"], X) and np.array_equal(labels["scores"], Y) and sizes == [4, 4, 2]


@pytest.mark.parametrize("dataset", [X, [X], lambda: iter(X), tf.data.Dataset.from_tensor_slices(X).batch(3)])
def test_labels_beside_a_dataset(dataset):
    inputs, labels, _ = joined(LabelledData(ONE, ["scores"], dataset, Y, batch_size=4))
    assert np.array_equal(inputs["x"], X) and np.array_equal(labels["scores"], Y)
    assert joined(LabelledData(ONE, ["scores"], dataset))[1] == {}


def test_known_number_of_samples():
    assert LabelledData(ONE, ["scores"], (X, Y)).known_samples == 10
    assert LabelledData(ONE, ["scores"], Pairs()).known_samples is None


def test_several_inputs_and_outputs():
    outputs, marks = ["output_10", "output_9"], np.arange(10.0)[:, None]
    for labels in ([marks, Y], {"output_10": Y, "output_9": marks}):
        inputs, found, _ = joined(LabelledData(TWO, outputs, ([X, IDS], labels)))
        assert np.array_equal(inputs["ids"], IDS) and np.array_equal(found["output_9"], marks)
        assert np.array_equal(found["output_10"], Y)
    assert list(joined(LabelledData(TWO, outputs, ([X, IDS], {"output_9": marks})))[1]) == ["output_9"]
    assert joined(LabelledData(TWO, outputs, (X, IDS)))[1] == {}  # one array for each input
    stream = tf.data.Dataset.from_tensor_slices(((X, IDS), (marks, Y)))
    for source in (stream, stream.batch(3)):
        assert np.array_equal(joined(LabelledData(TWO, outputs, source, batch_size=3))[1]["output_9"], marks)


@pytest.mark.parametrize("batch", [False, True])
def test_single_samples_have_single_labels(batch):
    """One-hot labels of one column, of images without the axis of channels."""
    images, labels = X[:, :, :, None], np.arange(10.0)[:, None]
    spec = (InputSpec("x", (4, 3, 1), "float32"),)
    for source in ((images, labels), (images[..., 0], labels)):
        stream = tf.data.Dataset.from_tensor_slices(source)
        inputs, found, _ = joined(LabelledData(spec, ["a"], stream.batch(1) if batch else stream))
        assert np.array_equal(inputs["x"], images) and np.array_equal(found["a"], labels)


@pytest.mark.parametrize("dataset", [[X, IDS], ([X, IDS], Y), lambda: iter([(X, IDS)])])
def test_inputs_whose_order_nobody_knows_have_to_be_named(dataset):
    with pytest.raises(DataError, match="the order of the inputs is not known; give samples as a dict .* x, ids"):
        list(LabelledData(TWO, ["a"], dataset, in_order=False))
    named = ({"x": X, "ids": IDS}, Y)
    assert np.array_equal(joined(LabelledData(TWO, ["a"], named, in_order=False))[0]["ids"], IDS)


def test_without_outputs_labels_may_be_anything():
    assert joined(LabelledData(ONE, [], (X, ["a", "b"])))[1] == {}
    assert joined(LabelledData(ONE, [], X, {"odd": "labels"}))[1] == {}


def sometimes():
    yield X[:3], Y[:3]
    yield X[3:]


@pytest.mark.parametrize(
    "outputs, dataset, labels, message",
    [
        (["a"], (X, Y), Y, "labels are given twice"),
        (["a"], Pairs(), Y, "labels are given twice"),
        (["a"], (X, Y[:8]), None, "there are 8 labels of output 'a' for 10 samples"),
        (["a"], (X, np.arange(12)), None, "there are 12 labels of output 'a' for 10 samples"),
        (["a"], (X, {"b": Y}), None, "'b' is no output; the outputs are a"),
        (["a"], (X, {}), None, "nothing is no output"),
        (["a", "b"], (X, [Y, Y]), None, "there are 2 outputs (a, b): give labels as a dict"),
        (["a", "b"], (X, Y), None, "there are 2 outputs (a, b): give labels as a dict"),
        (["a"], (X, ["cat"] * 10), None, "labels of output 'a' are <U3; encode them as numbers"),
        (["a"], (X, [[1], [1, 2]]), None, "labels of output 'a' are no array"),
        (["a"], (X, Y, Y), None, "sample weights"),
        (["a"], sometimes, None, "some elements of the evaluation dataset have labels"),
        (["a"], lambda: iter([]), None, "the evaluation dataset is empty"),
        (["a"], X[:, :2], None, "evaluation data for input 'x' is float32 of shape [batch, 2, 3]"),
        (["a"], "samples.npy", None, "the evaluation dataset is the path 'samples.npy'"),
    ],
)
def test_what_is_refused(outputs, dataset, labels, message):
    with pytest.raises(DataError) as caught:
        list(itertools.chain(LabelledData(ONE, outputs, dataset, labels, batch_size=4)))
    assert message in str(caught.value)
