"""Decisions between classes, and whether they are right."""

import numpy as np

from tfptq.data.errors import DataError


def accuracy(labels: np.ndarray, outputs: np.ndarray, probabilities: bool | None = None) -> np.ndarray:
    """Share of right decisions in each sample, float64 ``[samples]``.

    Args:
        labels: classes ``[samples, ...]``, or one-hot in the shape of the outputs.
        outputs: scores ``[samples, ..., classes]``; one column of probabilities or logits for two classes; or
            integers, which are decisions.
        probabilities: see ``decisions``.

    Raises:
        DataError: labels of another shape, or of classes that there are not.
    """
    decided = decisions(outputs, probabilities)
    several = decided.shape != outputs.shape and outputs.shape[-1] > 1
    if several and labels.shape == outputs.shape:
        true = labels.argmax(axis=-1)
    elif labels.size == decided.size:
        true = labels.reshape(decided.shape)
    else:
        raise DataError(
            f"the labels have the shape {list(labels.shape)}, and the output {list(outputs.shape)}: give a class for "
            f"each of {list(decided.shape)}, or one-hot labels; or another metric"
        )
    if several:
        _check_classes(true, outputs.shape[-1])
    elif outputs.dtype.kind == "f":
        _check_classes(true, 2)
    return (decided == true).reshape(len(decided), -1).mean(axis=1)


def decisions(outputs: np.ndarray, probabilities: bool | None = None) -> np.ndarray:
    """The class of each position, int ``[samples, ...]``.

    One column holds probabilities of the second of two classes, or logits where some value is below 0 or above 1;
    ``probabilities`` says which, if the outputs are not all that there are.
    """
    if outputs.dtype.kind != "f":
        return outputs
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    if probabilities is None:
        probabilities = are_probabilities(outputs)
    threshold = 0.5 if probabilities else 0.0
    return (outputs > threshold).astype(np.int64)


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether all values lie between 0 and 1."""
    return bool(outputs.size and outputs.min() >= 0.0 and outputs.max() <= 1.0)


def _check_classes(labels: np.ndarray, count: int) -> None:
    if labels.min() < 0 or labels.max() >= count or (labels != np.rint(labels)).any():
        raise DataError(
            f"the labels are from {labels.min()} to {labels.max()}; the output has the classes 0 to {count - 1}. Shift "
            "the labels, or give another metric"
        )
