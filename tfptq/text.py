"""Words in messages and reports."""


def counted(count: int, noun: str) -> str:
    """A number with its noun, ``"1 scale"`` or ``"2 scales"``; for nouns whose plural takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
