"""Counted nouns, unique names, kinds of values, and names from files that nobody has vouched for."""

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


def shortened(text: str, most: int = 200) -> str:
    """A text, or its beginning and how long it is: names in a file may have megabytes."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def quoted(text: str) -> str:
    """A text in quotes, shortened, with escapes for what a terminal would obey."""
    return repr(shortened(text))


def printable(text: str, keep: str = "") -> str:
    r"""Text for a terminal: what is not printable is escaped, such as ``\x1b``, except for what to ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
