"""The tables of the survey."""

from typing import Any


def tables(records: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Name of the markers -> table."""
    return {}
