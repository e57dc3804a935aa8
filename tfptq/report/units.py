"""Numbers of a report as text, for its tables, pages and messages."""

import math

#: Ratios in dB below which a layer is bad, and poor.
BAD_DB, POOR_DB = 10.0, 20.0


def format_bytes(count: int) -> str:
    """Size with a unit, powers of 1,024: ``"3.6 MiB"``."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def format_decibels(value: float | None, constant: bool = False) -> str:
    """Decibels with one decimal.

    Returns:
        ``"exact"`` for no noise at all, ``"-"`` for not measured, ``"constant"`` for what is the same for all samples.
    """
    if constant:
        return "constant"
    if value is None:
        return "-"
    return "exact" if value == math.inf else f"{value:.1f}"


def format_difference(value: float) -> str:
    """What a step did to the outputs of the float model."""
    return f"unchanged within {value:.1e} of the output range" if value else "unchanged but for float32 roundings"


def ratio_kind(value: float | None) -> str:
    """What to make of a ratio in dB: ``"good"``, ``"poor"``, ``"bad"``, or ``"unknown"``."""
    if value is None:
        return "unknown"
    return "bad" if value < BAD_DB else "poor" if value < POOR_DB else "good"
