"""The report of one quantization: values that turn into a table, JSON or an HTML page."""

import dataclasses
import json
import types
import typing
from typing import Any

from tfptq.report.page import render_page
from tfptq.report.table import render_report
from tfptq.report.values import ReportValues


class Report(ReportValues):
    """Everything worth knowing about one quantization, with its forms as text, JSON and HTML."""

    def render(self) -> str:
        """The report as a text table, a summary first."""
        return render_report(self)

    def __str__(self) -> str:
        return self.render()

    def to_html(self) -> str:
        """The report as one HTML page that needs no other file and no network."""
        return render_page(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text; ``from_json`` gives an equal report back. Infinity becomes the text ``"inf"``."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote; a ValueError if it is no report."""
        try:
            return _restore(cls, json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"the report is not valid JSON: {error}") from error
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(f"the JSON is not a report of tfptq: {error}") from error


def _plain(value: Any) -> Any:
    """Replace what strict JSON lacks: numpy numbers become Python's, non-finite numbers become text."""
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
