"""Words in messages and reports, and names that nothing else has."""

from collections.abc import Container


def counted(count: int, noun: str) -> str:
    """A number with its noun, ``"1 scale"`` or ``"2 scales"``; for nouns whose plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def unique_name(wanted: str, taken: Container[str]) -> str:
    """``wanted``, or if that is taken the first of ``wanted_1``, ``wanted_2``, ... that is not."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name
