"""JSON objects (RFC 8259) from texts that nobody has vouched for.

Limits keep readers from deep recursion, endless numbers and text that is no Unicode. ``cpp/tfptq/json.h`` accepts and
refuses the same.
"""

import json
import re
from typing import Any, NoReturn

#: Most brackets that are open at one time.
DEEPEST = 32
#: Most letters of a number, and digits of its exponent.
LONGEST_NUMBER, LONGEST_EXPONENT = 40, 2

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def read_object(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: it is none, or beyond the limits.
    """
    _check_depth(text)
    try:
        value = json.loads(
            text, parse_int=_whole, parse_float=_real, parse_constant=_constant, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST}")


def _whole(digits: str) -> int:
    return int(_checked(digits))


def _real(digits: str) -> float:
    return float(_checked(digits))


def _checked(number: str) -> str:
    exponent = re.split("[eE]", number)[1:]
    if len(number) > LONGEST_NUMBER or (exponent and len(exponent[0].lstrip("+-")) > LONGEST_EXPONENT):
        raise ValueError(f"a number has {len(number)} letters, or an exponent of more than {LONGEST_EXPONENT} digits")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for pair in pairs:
        _check_text(pair)
    return dict(pairs)


def _check_text(value: Any) -> None:
    """Refuse halves of surrogate pairs; objects inside were checked when they were made."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text has half of a surrogate pair") from error
    elif isinstance(value, list | tuple):
        for part in value:
            _check_text(part)
