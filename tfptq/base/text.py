"""Counted nouns and unique names."""

from collections.abc import Container


def counted(count: int, noun: str) -> str:
    """``"1 scale"`` or ``"2 scales"``; for nouns whose plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def unique_name(wanted: str, taken: Container[str]) -> str:
    """``wanted``, or the first of ``wanted_1``, ``wanted_2``, ... that is not taken."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name
