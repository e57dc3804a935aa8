"""Counted nouns, unique names, and what kind of thing a value is."""

from collections.abc import Container
from typing import Any


def counted(count: int, noun: str) -> str:
    """``"1 scale"`` or ``"2 scales"``; for nouns whose plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def kind_of(value: Any) -> str:
    """``"an int"``, ``"None"`` or ``"the class PerChannel"``, for messages about values of a wrong type."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def unique_name(wanted: str, taken: Container[str]) -> str:
    """``wanted``, or the first of ``wanted_1``, ``wanted_2``, ... that is not taken."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name
