"""Datasets of any kind, opened: whatever users hold, as passes over its elements.

A dataset is

* a numpy array (or anything that slices like one: a memory map, an HDF5 data set, a tensor), samples first;
* for a model with several inputs, a list of arrays in the model's order, or a dict from input name to array;
* a ``tf.data.Dataset``, batched or not, a Keras ``PyDataset``, or any other object that can be iterated again;
* a function without arguments that gives such an iterable, as TFLite's ``representative_dataset``.

The elements of a stream may be arrays, lists, dicts, or ``(inputs, labels)`` and ``(inputs, labels, weights)``
tuples as in ``model.fit``; labels are ignored. A sample without the batch axis gets one.
"""

import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfptq.base.text import kind_of
from tfptq.data.checks import (
    RESHAPE,
    Batch,
    DataError,
    InputSpec,
    as_array,
    by_name,
    checked,
    common_length,
    is_array,
    lacks_last_axis,
    misfit,
)

#: Input values in a batch, and samples in it, unless the caller says otherwise.
VALUES_PER_BATCH = 1 << 19
SMALLEST_BATCH, LARGEST_BATCH = 4, 32


def open_dataset(
    specs: tuple[InputSpec, ...], dataset: Any, batch_size: int | None = None
) -> tuple[Callable[[], Iterator[Any]], int, int | None]:
    """What starts a pass over the elements of a dataset, the size for its batches, and its samples if it tells them.

    Args:
        specs: what is asked of the inputs.
        dataset: samples in any of the forms above.
        batch_size: None for one by the size of the samples.

    Raises:
        DataError: the dataset is empty, of an unknown kind, can be read only once or never ends.
    """
    if is_array(dataset) or isinstance(dataset, (list, tuple, dict)):
        arrays = _arrays_by_name(specs, dataset)
        length = common_length(arrays)
        if batch_size is None:
            batch_size = _usual_batch_size(array.shape[1:] for array in arrays.values())
        return _sliced(arrays, length, batch_size), batch_size, length
    open_pass = _stream(dataset)
    if batch_size is None:
        batch_size = _usual_batch_size(_sample_shapes(specs, open_pass))
    return open_pass, batch_size, None


def first_element(dataset: Any) -> Any:
    """The inputs of the first element of a dataset: an array, or a list or dict of arrays, samples first.

    Raises:
        DataError: the dataset is empty, of an unknown kind, can be read only once or never ends.
    """
    if is_array(dataset) or isinstance(dataset, (list, tuple, dict)):
        return dataset
    for element in _stream(dataset)():
        return element[0] if isinstance(element, tuple) else element
    raise DataError("the calibration dataset is empty; give at least one sample, better a few hundred")


def _usual_batch_size(shapes: Iterable[tuple[int, ...]]) -> int:
    values = sum(math.prod(shape) for shape in shapes)
    return min(max(VALUES_PER_BATCH // max(values, 1), SMALLEST_BATCH), LARGEST_BATCH)


def _sample_shapes(specs: tuple[InputSpec, ...], open_pass: Callable[[], Iterator[Any]]) -> list[tuple[int, ...]]:
    """Shape of a sample of each input; sizes that the model leaves open are those of the first sample."""
    known = [tuple(size for size in spec.shape if size is not None) for spec in specs]
    if all(len(shape) == len(spec.shape) for shape, spec in zip(known, specs, strict=True)):
        return known
    for element in open_pass():
        return [values.shape[1:] for values in checked(specs, element).values()]
    return []  # an empty dataset, which is refused soon


def _stream(dataset: Any) -> Callable[[], Iterator[Any]]:
    """The function that starts a new pass over a dataset that is no array."""
    if isinstance(dataset, str | os.PathLike):
        raise DataError(f"the calibration dataset is the path {str(dataset)!r}; load its samples, as with numpy.load")
    if isinstance(dataset, tf.data.Dataset):
        refuse_endless(dataset.cardinality() == tf.data.INFINITE_CARDINALITY)
        return dataset.as_numpy_iterator
    if isinstance(dataset, keras.utils.PyDataset):
        refuse_endless(dataset.num_batches is None)
        return lambda: (dataset[index] for index in range(dataset.num_batches))
    if isinstance(dataset, tf.lite.RepresentativeDataset):
        dataset = dataset.input_gen
    if callable(dataset):
        return _called(dataset)
    if isinstance(dataset, Iterator):
        raise DataError(
            f"the calibration dataset is {kind_of(dataset)}, which can be read only once; "
            "pass the function that makes it instead, so that each pass can start afresh"
        )
    if isinstance(dataset, Iterable):
        return lambda: iter(dataset)
    raise DataError(
        f"the calibration dataset is {kind_of(dataset)}; pass a numpy array, a list or dict of arrays, "
        "a tf.data.Dataset, a keras PyDataset, or a function that returns an iterable of samples"
    )


def refuse_endless(endless: bool) -> None:
    """Raise a DataError for a stream that does not end."""
    if endless:
        raise DataError(
            "the calibration dataset does not end; give a few hundred samples, for example with dataset.take(8)"
        )


def _called(function: Callable[[], Iterable[Any]]) -> Callable[[], Iterator[Any]]:
    wanted = _wanted_arguments(function)
    if wanted:
        raise DataError(
            f"the calibration function wants arguments ({', '.join(wanted)}) and is called without any; pass "
            "functools.partial(function, ...)"
        )
    first, second = function(), function()
    if not isinstance(first, Iterable):
        raise DataError(
            f"the calibration function returned {kind_of(first)}; it must yield samples, or return an iterable"
        )
    if isinstance(first, Iterator) and first is second:
        raise DataError(
            "the calibration function returns the same iterator each time it is called; "
            "let it make a new one, so that each pass can start afresh"
        )
    return lambda: iter(function())


def _wanted_arguments(function: Callable) -> list[str]:
    """Arguments without which a function cannot be called, as far as it tells: functions in C may not."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [it.name for it in parameters if it.default is it.empty and it.kind not in optional]


def _sliced(arrays: dict[str, Any], length: int, batch_size: int) -> Callable[[], Iterator[Batch]]:
    def open_pass() -> Iterator[Batch]:
        for start in range(0, length, batch_size):
            yield {name: array[start : start + batch_size] for name, array in arrays.items()}

    return open_pass


def _arrays_by_name(specs: tuple[InputSpec, ...], dataset: Any) -> dict[str, Any]:
    """Name whole-dataset arrays; these must have the batch axis, since it is the one that is sliced."""
    named = by_name(specs, dataset)
    arrays = {spec.name: as_array(spec, named[spec.name]) for spec in specs}
    for spec in specs:
        rank = len(arrays[spec.name].shape)
        if rank != len(spec.shape) + 1 and not lacks_last_axis(spec, arrays[spec.name].shape):
            single = rank == len(spec.shape)
            hint = "; for a single sample, add the batch axis with sample[None]" if single else RESHAPE
            raise DataError(misfit(spec, arrays[spec.name]) + hint)
    return arrays
