"""Checks of calibration data: names, shapes and types of a batch against what a model asks for."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfptq.base.arguments import did_you_mean
from tfptq.base.text import counted
from tfptq.data.errors import DataError

Batch = dict[str, np.ndarray]
#: What to do about samples of a wrong shape.
RESHAPE = "; resize or reshape the samples as for model.predict"


@dataclass(frozen=True)
class InputSpec:
    """What a model asks of one of its inputs.

    Attributes:
        shape: of one sample, without the batch axis; None where any size will do.
        dtype: name of the element type.
        key: in the dict of inputs of a model that takes one; samples may go by it too.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    key: str | None = None

    def __str__(self) -> str:
        sizes = ", ".join(["batch", *("any" if size is None else str(size) for size in self.shape)])
        return f"{self.dtype} of shape [{sizes}]"


def input_specs(model: keras.Model) -> tuple[InputSpec, ...]:
    """The inputs of a model, in its order; raises a DataError if it has no defined inputs."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise DataError(
            f"the model {model.name!r} has no defined inputs; build it as a Functional model, "
            "or put keras.Input(shape) at the head of a Sequential one"
        )
    structure = getattr(model, "_inputs_struct", None)
    keys = {id(tensor): key for key, tensor in structure.items()} if isinstance(structure, dict) else {}
    strings = [tensor.name for tensor in inputs if tensor.dtype == "string"]
    if strings:
        raise DataError(
            f"input {strings[0]!r} of the model {model.name!r} takes strings, which a .tflite file of this kind cannot "
            "read; build keras.Model(...) from what the text layer gives (token ids), and apply that layer to the "
            "samples before"
        )
    return tuple(
        InputSpec(tensor.name, tuple(tensor.shape[1:]), str(tensor.dtype), keys.get(id(tensor))) for tensor in inputs
    )


def common_length(arrays: dict[str, Any]) -> int:
    """Number of samples; raises a DataError if it is not the same for all inputs."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        listing = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise DataError(
            f"calibration inputs have different numbers of samples: {listing}; give each input its part of every sample"
        )
    return next(iter(lengths.values()))


def is_array(value: Any) -> bool:
    """Whether a value slices like an array and tells its shape and type."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")


def by_name(specs: tuple[InputSpec, ...], element: Any) -> dict[str, Any]:
    """Take the inputs out of an element and name them.

    A tuple means ``(inputs, labels[, weights])`` as in ``model.fit``, or ``(signature, inputs)`` as TFLite has it.
    For a model with several inputs, a flat tuple with one array for each is taken as the inputs.
    """
    if isinstance(element, tuple) and element:
        if isinstance(element[0], str):
            return by_name(specs, element[1])
        if len(specs) == 1 or isinstance(element[0], (list, tuple, dict)):
            return by_name(specs, element[0])
    if isinstance(element, dict):
        return _known_names(specs, element)
    if isinstance(element, (list, tuple)) and not element:
        raise DataError("the calibration dataset is empty; give at least one sample, better a few hundred")
    values = list(element) if isinstance(element, (list, tuple)) else [element]
    _refuse_strings(specs[0], values)
    if len(values) != len(specs):
        raise DataError(
            f"the model has {counted(len(specs), 'input')} ({', '.join(spec.name for spec in specs)}) and the "
            f"calibration dataset gives {counted(len(values), 'array')}; give one array for each input"
            + (", or stack the samples with numpy.stack" if len(specs) == 1 else ", or a dict by input name")
        )
    return {spec.name: value for spec, value in zip(specs, values, strict=True)}


def _refuse_strings(spec: InputSpec, value: Any) -> None:
    """Refuse strings in the place of numbers, in an array or a list."""
    first = value[0] if isinstance(value, list) and value else value
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "kind", "") in ("U", "S", "O") or getattr(dtype, "name", "") == "string":
        first = next(iter(np.asarray(value).ravel()), None)
    if isinstance(first, str | bytes):
        raise DataError(
            f"calibration data for input {spec.name!r} holds strings, the first {str(first)[:40]!r}; the model asks "
            f"for {spec}: load the files if these are paths, or encode text as for model.predict"
        )


def _known_names(specs: tuple[InputSpec, ...], element: dict[str, Any]) -> dict[str, Any]:
    names = [spec.name for spec in specs]
    keys = {spec.name: spec.key for spec in specs if spec.key is not None}
    if len(keys) == len(specs) and set(keys.values()) == set(element):
        return {name: element[key] for name, key in keys.items()}
    missing = [name for name in names if name not in element]
    unknown = [str(name) for name in element if name not in names]
    if missing or unknown:
        found = [f"input {name!r} is missing" for name in missing] + [f"{name!r} is no input" for name in unknown]
        hints = filter(None, (did_you_mean(name, missing) for name in unknown))
        raise DataError(
            f"calibration data by name: {', '.join(found)}; give an array for each input of the model "
            f"({', '.join(names)}) and nothing else{next(hints, '')}"
        )
    return {name: element[name] for name in names}


def checked(specs: tuple[InputSpec, ...], element: Any, first: int = 0) -> Batch:
    """One element of a source as a batch of the right names, shapes and types; a DataError says what does not fit.

    ``first`` is the number of samples before it.
    """
    named = by_name(specs, element)
    batch = {spec.name: _checked_array(spec, as_array(spec, named[spec.name]), first) for spec in specs}
    common_length(batch)
    return batch


def as_array(spec: InputSpec, value: Any) -> Any:
    """Nested lists as an array; what slices like an array stays as it is, so that a memory map is not read."""
    if is_array(value):
        _refuse_strings(spec, value)
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"calibration data for input {spec.name!r} is no array ({error}); stack samples of one size"
        ) from error
    _refuse_strings(spec, array)
    return array


def _checked_array(spec: InputSpec, value: Any, first: int) -> np.ndarray:
    array = np.asarray(value)
    _refuse_strings(spec, array)  # those of TensorFlow, too
    if array.dtype.kind not in "biuf":
        raise DataError(misfit(spec, array) + "; convert it to numbers, or stack samples of one size")
    array = _with_missing_axes(spec, array)
    if not _fits(spec.shape, array.shape[1:]):
        raise DataError(misfit(spec, array) + RESHAPE)
    return _cast(spec, array, first)


def _with_missing_axes(spec: InputSpec, array: np.ndarray) -> np.ndarray:
    """Add the batch axis to a single sample, and the last axis of one to samples without it (grey images)."""
    shape = spec.shape
    if shape and shape[-1] == 1 and not _fits(shape, array.shape):
        single, several = _fits(shape[:-1], array.shape), _fits(shape[:-1], array.shape[1:])
        array = array[..., None] if single or several else array
    return array[None] if array.ndim == len(shape) else array


def _fits(shape: tuple[int | None, ...], found: tuple[int, ...]) -> bool:
    return len(shape) == len(found) and all(size in (None, other) for size, other in zip(shape, found, strict=True))


def lacks_last_axis(spec: InputSpec, shape: tuple[int, ...]) -> bool:
    """Whether a whole dataset of some shape lacks the last axis of one that an input has."""
    return spec.shape[-1:] == (1,) and _fits(spec.shape[:-1], shape[1:])


def _cast(spec: InputSpec, array: np.ndarray, first: int) -> np.ndarray:
    """Copy with the element type of the input, refusing whatever would change the values."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(spec.dtype)
    into_float = result.dtype.kind == "f"
    finite = np.isfinite(result if into_float else array)
    if not finite.all():
        bad = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
        raise DataError(
            f"calibration data for input {spec.name!r} holds NaN, infinity or values too large for {spec.dtype}, first "
            f"in sample {first + bad[0]} of those read, counted from 0; clean or drop those samples"
        )
    if not into_float and not np.array_equal(result, array):
        raise DataError(
            f"calibration data for input {spec.name!r} is {array.dtype} and holds values that {spec.dtype} cannot, "
            f"which is what the model asks for; encode the samples as for model.predict"
        )
    return result


def misfit(spec: InputSpec, array: Any) -> str:
    """Message: what was given for an input, and what the model asks for."""
    sizes = list(map(str, array.shape))
    if len(sizes) == len(spec.shape) + 1:
        sizes[0] = "batch"  # the array may be a part of what the user gave, whose length would only confuse
    shape = ", ".join(sizes)
    return f"calibration data for input {spec.name!r} is {array.dtype} of shape [{shape}]; the model asks for {spec}"
