"""Dataclasses as strict JSON text, and back."""

import dataclasses
import json
import types
import typing
from typing import Any, TypeVar

Instance = TypeVar("Instance")


def to_json(instance: Any, indent: int | None = 2) -> str:
    """Strict JSON text of a dataclass; numbers of numpy's become Python's, non-finite ones the texts ``"inf"``, ..."""
    return json.dumps(_plain(dataclasses.asdict(instance)), indent=indent, allow_nan=False)


def from_json(cls: type[Instance], text: str, what: str) -> Instance:
    """The dataclass that ``to_json`` wrote.

    Args:
        cls: its class; fields are dataclasses, tuples and dicts of one type, numbers, texts, or None.
        text: the JSON text.
        what: what it should be, for messages: ``"a report"``.

    Raises:
        ValueError: no JSON, or that of something else.
    """
    try:
        return _restore(cls, json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"the text is not valid JSON: {error}") from error
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"the JSON is not {what} of tfptq: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def _restore(kind: Any, value: Any) -> Any:
    """Build a value of the annotated type ``kind`` from plain JSON values."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value.keys()) - set(hints)
        if unknown:
            raise TypeError(f"unknown fields {', '.join(sorted(unknown))}")
        return kind(**{name: _restore(hints[name], item) for name, item in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_restore(arguments[0], item) for item in value)
    if origin is dict:
        return {key: _restore(arguments[1], item) for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _restore(arguments[0], value)
    if kind is float:
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
