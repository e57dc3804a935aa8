"""The schema of the block metadata, ``blocks.fbs``, and the numbers that it gives to layouts."""

from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.layouts import LAYOUTS, Layout
from tfptq.tflite.schema import Schema, own_schema


def blocks_schema() -> Schema:
    """The parsed ``blocks.fbs``."""
    return own_schema("blocks.fbs")


def layout_number(layout: Layout) -> int:
    """Number of a layout in the enumeration ``Layout``."""
    return blocks_schema().enums["Layout"][1][layout.format_name]


def layout_of(number: int, what: str) -> Layout:
    """The first layout that a member of the enumeration describes; ``what`` has it, for the message."""
    for layout in LAYOUTS:
        if layout_number(layout) == number:
            return layout
    raise FormatError(f"block metadata of {what}: unknown layout {number}")


def member_of(names: tuple[str, ...], number: int, kind: str, what: str) -> str:
    """The member of an enumeration that a number stands for."""
    if number >= len(names):
        raise FormatError(f"block metadata of {what}: unknown {kind} {number}")
    return names[number]
