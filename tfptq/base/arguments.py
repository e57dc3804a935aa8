"""Checks of arguments: each names the field, what was found, and what it may be."""

import dataclasses
import difflib
import numbers
import types
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Any

#: Dataclass -> field -> types that it may be of; configs are made by the hundred.
_TYPES: dict[type, dict[str, tuple[type, ...]]] = {}


def one_of(field: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse a value that is not among those allowed; the message has a close name, where there is one."""
    if value not in tuple(allowed):  # which takes a value that cannot be hashed
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{field} is {value!r}; it must be one of {listed}{did_you_mean(value, allowed)}")


def did_you_mean(value: Any, allowed: Iterable[Any]) -> str:
    """The end of a message about a name that is none of those allowed: a close one, or nothing."""
    names = [name for name in allowed if isinstance(name, str)]
    close = difflib.get_close_matches(value, names, 1) if isinstance(value, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def between(field: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside of ``low`` to ``high``.

    Limits that have no reason of their own lie far outside of what is of use: they refuse slips of the pen, such as a
    learning rate of 1e-30, and numbers that would overflow.
    """
    if not low <= value <= high:
        raise ValueError(f"{field} is {value}; it must be between {low} and {high}")


def whole_number(name: str, value: Any, most: int) -> int:
    """An argument as Python's own int, refused before it would fail after minutes of work.

    Raises:
        ValueError: a number out of the range from 0 to ``most``.
        TypeError: no whole number.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    number = int(value)
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {number}; it must be between 0 and {most}")
    return number


def plain(value: Any) -> Any:
    """A number of numpy's, or of another library's, as Python's own, and a list as a tuple; anything else as it is.

    Configs are compared, hashed and written as JSON, for which they hold Python's own values.
    """
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    if isinstance(value, bool | str) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_types(instance: object) -> None:
    """Make numbers in a dataclass Python's own, and refuse values of other types than its fields declare."""
    for name, kinds in _types_of_fields(type(instance)).items():
        value = getattr(instance, name)
        if not any(_is_a(plain(value), kind) for kind in kinds):
            wanted = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{type(instance).__name__}.{name} is {value!r}; it must be of the type {wanted}")
        object.__setattr__(instance, name, plain(value))


def _types_of_fields(cls: Any) -> dict[str, tuple[type, ...]]:
    if cls not in _TYPES:
        hints = typing.get_type_hints(cls)
        _TYPES[cls] = {field.name: tuple(_types_of(hints[field.name])) for field in dataclasses.fields(cls)}
    return _TYPES[cls]


def _types_of(hint: Any) -> Iterator[type]:
    for kind in typing.get_args(hint) if _is_union(hint) else (hint,):
        yield typing.get_origin(kind) or kind


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _is_a(value: Any, kind: type) -> bool:
    """Whether a value is of a type, where a truth value is no number, and a whole number will do for a real one."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
