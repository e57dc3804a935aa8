"""Metrics of outputs against labels: accuracy, those of Keras, and functions.

A metric of single samples (accuracy, or a function that returns an array) has a paired standard error of its difference
between two models: that of the mean of the differences. For other metrics of Keras it is that of the delete-a-group
jackknife (Efron and Tibshirani, "An Introduction to the Bootstrap", section 11.5). A function that returns one number
has none: nobody knows what it would make of a part of the samples.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfptq.data.errors import DataError
from tfptq.evaluation.classes import accuracy
from tfptq.evaluation.moments import Moments

#: Arrays ``[samples, ...]``, or a dict of these by output name.
Arrays = Any
#: Groups of the jackknife.
GROUPS = 32


@dataclass(frozen=True, eq=False)
class Metric:
    """A way to judge outputs.

    Attributes:
        name: for tables.
        compute: labels and outputs to one number, or to one for each sample.
        lower_is_better: whether it measures an error.
        of_parts: whether it may be computed on some of the samples.
        needs_labels: whether it cannot do without.
        is_function: whether it is a user's function, which takes several outputs at once, as a dict, and may do without
            labels.
    """

    name: str
    compute: Callable[[Arrays, Arrays], Any]
    lower_is_better: bool = False
    of_parts: bool = False
    needs_labels: bool = False
    is_function: bool = False


@dataclass(frozen=True)
class Score:
    """What a metric says of the file and of the float model.

    Attributes:
        metric: its name.
        output: the output that it judges; empty for all of them.
        value: of the file.
        float_value: of the float model, or None without one.
        drop_error: standard error of the drop, or None where it is not known.
        lower_is_better: whether the metric measures an error.
    """

    metric: str
    output: str
    value: float
    float_value: float | None = None
    drop_error: float | None = None
    lower_is_better: bool = False

    @property
    def drop(self) -> float | None:
        """What the file loses against the float model, in the unit of the metric."""
        if self.float_value is None:
            return None
        return (self.float_value - self.value) * (-1.0 if self.lower_is_better else 1.0)


def resolve_metrics(metric: Any, outputs: Sequence[str]) -> Metric | dict[str, Metric] | None:
    """What users pass as ``metric=``: one, or one by output name; None for no metric.

    Raises:
        ValueError: a name that is no metric, or no output.
        TypeError: something else.
    """
    if not isinstance(metric, dict):
        return None if _is_none(metric) else resolve_metric(metric)
    unknown = [name for name in metric if name not in outputs]
    if unknown:
        raise ValueError(f"metric names {unknown[0]!r}, which is no output; the outputs are {', '.join(outputs)}")
    return {name: resolve_metric(item) for name, item in metric.items() if not _is_none(item)} or None


def _is_none(metric: Any) -> bool:
    return metric is None or (isinstance(metric, str) and metric == "none")


def resolve_metric(metric: Any) -> Metric:
    """``"accuracy"``, a metric of Keras as object, class or name, or a function."""
    if isinstance(metric, str) and metric == "accuracy":
        return Metric("accuracy", accuracy)
    name = None
    if isinstance(metric, str):
        name, metric = metric, _keras_metric(metric)
    if inspect.isclass(metric) and issubclass(metric, keras.metrics.Metric):
        metric = metric()
    if isinstance(metric, keras.metrics.Metric):
        lower = getattr(metric, "_direction", "up") == "down"
        return Metric(metric.name, _updated(metric), lower, of_parts=True, needs_labels=True)
    if callable(metric):
        own = str(getattr(metric, "__name__", type(metric).__name__))
        return Metric(name or own, metric, is_function=True)
    raise TypeError(
        f"metric is {metric!r}; it must be 'accuracy', 'none', a metric of Keras or its name, or a function of labels "
        "and outputs"
    )


def _keras_metric(name: str) -> Any:
    try:
        return keras.metrics.get(name)
    except ValueError as error:
        raise ValueError(
            f"metric is {name!r}; it must be 'accuracy', 'none' or the name of a metric of Keras"
        ) from error


def _updated(metric: keras.metrics.Metric) -> Callable[[np.ndarray, np.ndarray], float]:
    """A function that a metric of Keras computes; the metric is as new before and after."""

    def compute(labels: np.ndarray, outputs: np.ndarray) -> float:
        metric.reset_state()
        try:
            metric.update_state(labels, outputs)
            return keras.ops.convert_to_numpy(metric.result())
        finally:
            metric.reset_state()

    return compute


def score(metric: Metric, output: str, labels: Arrays, found: Arrays, expected: Arrays | None) -> Score:
    """Judge the outputs of a file, and those of the float model beside it.

    Args:
        metric: how.
        output: name of the output, or empty for all.
        labels: labels, or None.
        found: outputs of the file.
        expected: outputs of the float model, or None without one.

    Raises:
        DataError: the labels do not fit.
        ValueError: the metric gives no number.
    """
    ours = numbers_of(metric, metric.compute(labels, found), found)
    if expected is None:
        return Score(metric.name, output, float(ours.mean()), lower_is_better=metric.lower_is_better)
    theirs = numbers_of(metric, metric.compute(labels, expected), found)
    error = None
    if ours.ndim:
        error = Moments.of(theirs - ours).standard_error
    elif metric.of_parts and labels is not None:
        error = _jackknife_error(metric, labels, found, expected)
    return Score(metric.name, output, float(ours.mean()), float(theirs.mean()), error, metric.lower_is_better)


def numbers_of(metric: Metric, result: Any, outputs: Arrays) -> np.ndarray:
    """The result of a metric as a number, or as one for each sample; float64 ``[]`` or ``[samples]``."""
    count = len(next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs)
    try:
        values = np.asarray(result, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metric {metric.name!r} gives {result!r}, which is no number") from error
    if values.ndim and len(values) != count:
        raise ValueError(
            f"the metric {metric.name!r} gives an array of shape {list(values.shape)}; it must give one number, or one "
            f"for each of the {count} samples"
        )
    return values.reshape(len(values), -1).mean(axis=1) if values.ndim else values


def _jackknife_error(metric: Metric, labels: np.ndarray, found: np.ndarray, expected: np.ndarray) -> float | None:
    """Standard error of the difference between two models, by leaving out one group of samples after the other."""
    count = len(labels)
    groups = min(GROUPS, count)
    if groups < 2:
        return None
    differences = []
    for group in range(groups):
        kept = np.arange(count) % groups != group
        theirs, ours = (metric.compute(labels[kept], values[kept]) for values in (expected, found))
        differences.append(float(theirs) - float(ours))
    return float(np.sqrt((groups - 1) * np.var(differences)))


def scores(
    metrics: Metric | Mapping[str, Metric],
    labels: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> tuple[Score, ...]:
    """Apply a metric to each output with labels, a function to all at once; or one by output name to its own.

    Args:
        metrics: the metric, or output name -> metric.
        labels: output name -> labels; empty without any.
        found: output name -> values of the file.
        expected: the same of the float model; empty without one.

    Raises:
        DataError: a metric needs labels that there are not, or they do not fit.
    """
    return tuple(
        score(metric, name, *(of_output(name, values) for values in (labels, found, expected)))
        for name, metric in assigned(metrics, labels, found).items()
    )


def assigned(
    metrics: Metric | Mapping[str, Metric], labels: Collection[str], outputs: Collection[str]
) -> dict[str, Metric]:
    """Output name -> what judges it; under the name ``""`` a function that judges all of several outputs at once.

    Args:
        metrics: the metric, or output name -> metric.
        labels: names of the outputs with labels.
        outputs: names of all outputs.

    Raises:
        DataError: a metric needs labels that there are not.
    """
    if isinstance(metrics, Metric) and metrics.is_function and len(outputs) > 1:
        return {"": metrics}
    if isinstance(metrics, Metric):
        judged = labels if labels or not (metrics.is_function or metrics.needs_labels) else outputs
        metrics = dict.fromkeys(judged, metrics)
    missing = [name for name, metric in metrics.items() if metric.needs_labels and name not in labels]
    if missing:
        raise DataError(
            f"the metric {metrics[missing[0]].name!r} of output {missing[0]!r} needs labels; give (samples, labels)"
        )
    return dict(metrics)


def of_output(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays | None:
    """The array of an output, those of all for the name ``""``; None if there are none."""
    return arrays.get(name) if name else arrays or None
