import numpy as np
import pytest

from tfptq.data.errors import DataError
from tfptq.evaluation.classes import accuracy, decisions

SCORES = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.3, 0.3, 0.4]], np.float32)


@pytest.mark.parametrize("labels", [[1, 2, 2], [[1], [2], [2]], np.eye(3)[[1, 2, 2]], [1.0, 2.0, 2.0]])
def test_classes_and_one_hot_labels(labels):
    assert accuracy(np.array(labels), SCORES).tolist() == [1, 0, 1]


def test_one_column_of_probabilities_or_logits():
    labels = np.array([0, 1, 1])
    for shape in ((3,), (3, 1)):
        assert accuracy(labels, np.float32([0.4, 0.6, 0.4]).reshape(shape)).tolist() == [1, 1, 0]
        assert accuracy(labels[:, None] > 0, np.float32([-3.0, 0.2, -0.1]).reshape(shape)).tolist() == [1, 1, 0]


def test_each_position_of_a_sample_counts():
    outputs = np.zeros((2, 4, 3), np.float32)
    outputs[0, :3, 1] = outputs[1, :1, 1] = 1
    assert accuracy(np.ones((2, 4), int), outputs).tolist() == [0.75, 0.25]


def test_integer_outputs_are_decisions():
    outputs = np.array([[3, 4], [5, 6]])
    assert accuracy(np.array([[3, 4], [5, 0]]), outputs).tolist() == [1.0, 0.5]
    assert decisions(outputs) is outputs


@pytest.mark.parametrize(
    "labels, outputs, message",
    [
        ([1, 2, 3], SCORES, "the labels are from 1 to 3; the output has the classes 0 to 2"),
        ([-1, 0, 1], SCORES, "the labels are from -1 to 1"),
        ([0.5, 0, 1], SCORES, "the labels are from 0.0 to 1.0"),
        ([[0, 1], [1, 0], [1, 0]], SCORES, "the labels have the shape [3, 2], and the output [3, 3]"),
        ([0, 1, 2], SCORES[:, :1], "the output has the classes 0 to 1"),
    ],
)
def test_labels_that_do_not_fit(labels, outputs, message):
    with pytest.raises(DataError) as caught:
        accuracy(np.array(labels), outputs)
    assert message in str(caught.value)
