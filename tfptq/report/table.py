"""The report as text: a summary, a table of layers, and what needs attention."""

import math
from collections.abc import Sequence

from tfptq.base.text import counted, printable
from tfptq.report.values import ReportValues

_HEAD = (
    *("layer", "type", "granularity", "bits", "rounding", "layout"),
    *("scales", "float", "quantized", "weights dB", "output dB"),
)
_TEXT_COLUMNS = {"layer", "type", "granularity", "rounding", "layout"}
_LONGEST_CELL = 40


def render_report(report: ReportValues) -> str:
    """Text of a report, lines separated by newlines, none at the end."""
    blocks = ["\n".join(map(printable, _summary(report))), _layers(report)]
    blocks += [
        _listing("left in float:", [f"{item.name} ({item.type}): {item.reason}" for item in report.skipped]),
        _listing(
            "on integers, but not fitted by their config:",
            [f"{item.name} ({item.type}): {item.reason}" for item in report.unfitted],
        ),
        _listing(
            "float operators in the file:",
            [f"{item.operator} -> {item.tensor}: {item.reason}" for item in report.float_operators],
        ),
        _listing("warnings:", report.warnings),
    ]
    return "\n\n".join(block for block in blocks if block)


def format_bytes(count: int) -> str:
    """Size with a unit, powers of 1,024: ``"3.6 MiB"``."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def format_decibels(value: float | None) -> str:
    """Decibels with one decimal; ``"exact"`` for no noise at all, ``"-"`` for not measured."""
    if value is None:
        return "-"
    return "exact" if value == math.inf else f"{value:.1f}"


def format_difference(value: float) -> str:
    """What a step did to the outputs of the float model."""
    return f"unchanged within {value:.1e} of the output range" if value else "unchanged but for float32 roundings"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: set[str]) -> str:
    """Align cells in columns.

    Args:
        head: column titles.
        rows: cells as text, one for each column.
        left: titles of the columns to align to the left; the others go to the right.
    """
    cells = [list(head), *([_shorten(printable(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if title in left else cell.rjust(width)
            for title, cell, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _summary(report: ReportValues) -> list[str]:
    lines = [
        f"{report.model_name}: {counted(len(report.layers), 'layer')} quantized with {report.preset}, "
        f"{counted(report.samples, 'calibration sample')}, seed {report.seed}",
        f"file {format_bytes(report.file_bytes)}, float {format_bytes(report.float_file_bytes)} "
        f"({report.change_of_size})",
    ]
    if report.outputs:
        ratios = (f"{name} {format_decibels(ratio)}" for name, ratio in report.outputs.items())
        lines.append(f"outputs against float, on calibration samples, dB: {', '.join(ratios)}")
    if report.float_differences:
        step, worst = max(report.float_differences.items(), key=lambda item: item[1])
        lines.append(f"float graph {format_difference(worst)}" + (f" (step {step!r})" if worst else ""))
    if report.seconds:
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.seconds.items())
        lines.append(f"{sum(report.seconds.values()):.1f} s: {steps}")
    return lines


def _layers(report: ReportValues) -> str:
    if not report.layers:
        return ""
    rows = [
        (
            layer.name,
            layer.type,
            layer.granularity,
            str(layer.bits),
            layer.rounding,
            layer.layout,
            str(layer.scales),
            format_bytes(layer.bytes_before),
            format_bytes(layer.bytes_after),
            format_decibels(layer.weight_snr_db),
            format_decibels(layer.output_snr_db),
        )
        for layer in report.layers
    ]
    before = sum(layer.bytes_before for layer in report.layers)
    after = sum(layer.bytes_after for layer in report.layers)
    scales = sum(layer.scales for layer in report.layers)
    rows.append(("total", *5 * ("",), str(scales), format_bytes(before), format_bytes(after), "", ""))
    return format_table(_HEAD, rows, _TEXT_COLUMNS)


def _listing(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {printable(line)}" for line in lines)]) if lines else ""


def _shorten(cell: str) -> str:
    """Cut the middle out of a cell that would make the table too wide; both ends of a layer name tell it apart."""
    if len(cell) <= _LONGEST_CELL:
        return cell
    half = (_LONGEST_CELL - 3) // 2
    return f"{cell[:half]}...{cell[-(_LONGEST_CELL - 3 - half) :]}"
