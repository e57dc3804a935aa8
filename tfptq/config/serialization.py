"""Quantization configs as plain values for JSON, and back."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfptq.base.arguments import did_you_mean, one_of
from tfptq.base.json_object import read_object
from tfptq.config.parts import Calibration, LayerOverride, MixedPrecision, Rounding
from tfptq.config.target import Target
from tfptq.core.granularity import GRANULARITIES, Granularity


def encode(value: Any) -> Any:
    """A config, or a part of one, as dictionaries, lists, texts, numbers and None."""
    if isinstance(value, LayerOverride):
        return {"pattern": value.pattern, "changes": {name: encode(item) for name, item in value.changes}}
    if isinstance(value, Target):
        return value.to_plain()
    if isinstance(value, Granularity):
        return {"type": type(value).__name__, **_fields(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def encode_changes(value: Any, baseline: Any = None) -> Any:
    """As ``encode``, without fields that are as in ``baseline``, for parts of a config as in their class.

    A part of which the method alone remains is that method's name.
    """
    if isinstance(value, LayerOverride):
        return {"pattern": value.pattern, "changes": {name: encode_changes(item) for name, item in value.changes}}
    if isinstance(value, Target):
        return value.to_plain()
    if isinstance(value, tuple):
        return [encode_changes(item) for item in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    base = {field.name: getattr(baseline, field.name, field.default) for field in dataclasses.fields(value)}
    changes = {name: encode_changes(item) for name, item in vars(value).items() if item != base[name]}
    if isinstance(value, Granularity):
        return {"type": type(value).__name__, **changes}
    if isinstance(value, Rounding | Calibration) and changes.keys() == {"method"}:
        return changes["method"]
    return changes


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}


def read_json(text: str) -> dict[str, Any]:
    """A JSON object; a ValueError for any other text."""
    try:
        return read_object(text)
    except ValueError as error:
        raise ValueError(
            f'the quantization config cannot be read: {error}; write one such as {{"weight_bits": 8}}'
        ) from error


def decode(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a config from what ``encode`` made of them; unknown ones stay as they are.

    Raises:
        ValueError: a field of another shape; the message names it.
    """
    return {name: _READERS[name](name, value) if name in _READERS else value for name, value in values.items()}


def _granularity(name: str, value: Any) -> Granularity:
    if not isinstance(value, dict) or "type" not in value:
        raise ValueError(f'{name} has an unexpected shape: {value!r}; write {{"type": "PerChannel"}}')
    fields = dict(value)
    kind = fields.pop("type")
    one_of(f"{name}.type", kind, tuple(GRANULARITIES))  # a tuple: the value may be no key
    return _made(name, GRANULARITIES[kind], fields)


def _part(kind: type) -> Callable[[str, Any], Any]:
    """Reader of a part that is a dictionary; the config itself judges anything else, such as a method's name."""
    return lambda name, value: _made(name, kind, value) if isinstance(value, dict) else value


def _multipliers(name: str, value: Any) -> Any:
    del name
    return tuple(value) if isinstance(value, list) and value else value


def _overrides(name: str, value: Any) -> tuple[LayerOverride, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} has an unexpected shape: {value!r}; write a list of patterns with changes")
    return tuple(_override(f"{name}[{index}]", item) for index, item in enumerate(value))


def _override(name: str, value: Any) -> LayerOverride:
    if (
        not isinstance(value, dict)
        or set(value) != {"pattern", "changes"}
        or not isinstance(value["pattern"], str)
        or not isinstance(value["changes"], dict)
    ):
        raise ValueError(
            f'{name} has an unexpected shape: {value!r}; write {{"pattern": "stem", "changes": {{"weight_bits": 8}}}}'
        )
    return LayerOverride(value["pattern"], tuple(sorted(decode(value["changes"]).items())))


def _made(name: str, kind: type, fields: dict[str, Any]) -> Any:
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise ValueError(
            f"{name} has no field {unknown[0]!r}; {kind.__name__} has {', '.join(known) or 'none'}"
            + did_you_mean(unknown[0], known)
        )
    return kind(**fields)


#: Field -> how to read it from its name and its plain value.
_READERS: dict[str, Callable[[str, Any], Any]] = {
    "granularity": _granularity,
    "multipliers": _multipliers,
    "rounding": _part(Rounding),
    "calibration": _part(Calibration),
    "mixed_precision": _part(MixedPrecision),
    "overrides": _overrides,
    "tail": lambda name, value: tuple(value) if isinstance(value, list) else value,
    "target": lambda name, value: Target.from_plain(value),
}
