"""The report as text: what is wrong, a summary, a table of layers, and what else to know.

On a terminal it has colours, and as many columns of the table as fit. Elsewhere it is plain text with all of them.
"""

import io
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import Box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfptq.base.text import counted, printable
from tfptq.report.units import format_bytes, format_decibels, format_difference, ratio_kind
from tfptq.report.values import LayerReport, ReportValues

#: Cells are shortened to this. On a narrow terminal names are shortened to that before columns are left out, and to no
#: less than the last where all columns that may be are.
_LONGEST_CELL, _SHORT_NAME, _SHORTEST_NAME = 40, 24, 12
#: Width of text that goes to a file: no line is broken.
_UNLIMITED = 100_000
_STYLES = {"good": "", "unknown": "", "poor": "yellow", "bad": "red"}
#: One rule below the head, blanks elsewhere; ASCII for logs of any encoding.
_RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
#: Blanks between columns, one of them that of the box.
_GAP = 2


@dataclass(frozen=True)
class _Column:
    """A column of the table of layers.

    Attributes:
        cell: text for a layer.
        rank: columns of a higher one are left out first where the table is too wide.
        left: whether it is aligned to the left.
        style: of the cell of a layer.
    """

    title: str
    cell: Callable[[LayerReport], str]
    rank: int
    left: bool = False
    style: Callable[[LayerReport], str] = lambda layer: ""


COLUMNS = (
    _Column("layer", lambda layer: layer.name, 0, left=True),
    _Column("type", lambda layer: layer.type, 6, left=True),
    _Column("granularity", lambda layer: layer.granularity, 5, left=True),
    _Column("bits", lambda layer: str(layer.bits), 0),
    _Column("rounding", lambda layer: layer.rounding, 8, left=True),
    _Column("layout", lambda layer: layer.layout, 4, left=True),
    _Column("scales", lambda layer: str(layer.scales), 7),
    _Column("float", lambda layer: format_bytes(layer.bytes_before), 3),
    _Column("quantized", lambda layer: format_bytes(layer.bytes_after), 1),
    _Column("weights dB", lambda layer: format_decibels(layer.weight_snr_db), 2),
    _Column(
        "output dB",
        lambda layer: format_decibels(layer.output_snr_db, layer.constant),
        0,
        style=lambda layer: _STYLES[ratio_kind(layer.measured_db)] if not layer.constant else "red",
    ),
)


def render_report(report: ReportValues, width: int | None = None) -> str:
    """Plain text of a report, without a newline at the end.

    Args:
        report: the report.
        width: of the lines; None for lines as long as they want to be.
    """
    file = io.StringIO()
    console = Console(file=file, width=width or _UNLIMITED, color_system=None, legacy_windows=False)
    console.print(report_renderable(report, width or _UNLIMITED))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).rstrip()


def text_for_stdout(report: ReportValues) -> str:
    """Plain text, as wide as the terminal that the standard output goes to; of any width if that is none."""
    return render_report(report, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)


def print_report(report: ReportValues) -> None:
    """Print to the standard output: in colours on a terminal, plain text elsewhere."""
    console = Console()
    if console.is_terminal:
        console.print(report_renderable(report, console.width))
    else:
        print(render_report(report))


def report_renderable(report: ReportValues, width: int) -> Group:
    """A report for consoles of rich."""
    blocks = [
        _text(
            f"{report.model_name}: {counted(len(report.layers), 'layer')} quantized with {report.preset}, "
            f"{counted(report.samples, 'calibration sample')}, seed {report.seed}",
            style="bold",
        ),
        _banner(report),
        Text("\n".join(map(printable, _summary(report)))),
        _layers(report.layers, width),
        _listing("left in float", [f"{item.name} ({item.type}): {item.reason}" for item in report.skipped]),
        _listing(
            "on integers, but not fitted by their config",
            [f"{item.name} ({item.type}): {item.reason}" for item in report.unfitted],
        ),
        _listing(
            "float operators in the file",
            [f"{item.operator} -> {item.tensor}: {item.reason}" for item in report.float_operators],
        ),
        _listing("notes", report.notes),
    ]
    there = [block for block in blocks if block is not None]
    # A summary without warnings in between goes on below its first line.
    gaps = [None if at == 1 and not report.findings else Text("") for at in range(1, len(there))]
    between = zip(gaps, there[1:], strict=True)
    return Group(there[0], *(part for pair in between for part in pair if part is not None))


def _banner(report: ReportValues) -> RenderableType | None:
    """What is wrong, each finding with what to do about it."""
    if not report.findings:
        return None
    parts: list[RenderableType] = [_text(f"! {counted(len(report.findings), 'warning')}", style="bold red")]
    for finding in report.findings:
        parts.append(Padding(_text(finding.problem, style="red"), (0, 0, 0, 2)))
        parts.append(Padding(_text(finding.advice), (0, 0, 0, 4)))
    return Group(*parts)


def _summary(report: ReportValues) -> list[str]:
    lines = [
        f"file {format_bytes(report.file_bytes)}, float {format_bytes(report.float_file_bytes)} "
        f"({report.change_of_size})",
    ]
    if report.outputs:
        ratios = (
            f"{name} {format_decibels(ratio, name in report.constant_outputs)}"
            for name, ratio in report.outputs.items()
        )
        lines.append(f"outputs against float, on calibration samples, dB: {', '.join(ratios)}")
    if report.float_differences:
        step, worst = max(report.float_differences.items(), key=lambda item: item[1])
        lines.append(f"float graph {format_difference(worst)}" + (f" (step {step!r})" if worst else ""))
    if report.seconds:
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.seconds.items())
        lines.append(f"{sum(report.seconds.values()):.1f} s: {steps}")
    return lines


def _layers(layers: Sequence[LayerReport], width: int) -> RenderableType | None:
    if not layers:
        return None
    cells = {
        column: [_shortened(printable(column.cell(layer)), _LONGEST_CELL) for layer in layers] for column in COLUMNS
    }
    totals = _totals(layers)
    widths = {column: _width(column, [*cells[column], totals.get(column.title, "")]) for column in COLUMNS}
    shown, name_width = _fitting(widths, width)
    table = Table(box=_RULE, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    for at, layer in enumerate(layers):
        table.add_row(*(_cell(column, layer, cells[column][at], name_width) for column in shown))
    table.add_row(*(_text(totals.get(column.title, ""), style="bold") for column in shown))
    hidden = [column.title for column in COLUMNS if column not in shown]
    if not hidden:
        return table
    return Group(table, _text(f"wider terminals show {', '.join(hidden)}, too", style="dim"))


def _width(column: _Column, cells: Sequence[str]) -> int:
    return max(map(len, (column.title, *cells)))


def _fitting(widths: dict[_Column, int], width: int) -> tuple[list[_Column], int]:
    """The columns that fit a width, and the room that they leave for the first, which holds the names."""
    name, *shown = widths
    least = min(widths[name], _SHORT_NAME)

    def others() -> int:
        return sum(_GAP + widths[column] for column in shown)

    while least + others() > width and any(column.rank for column in shown):
        shown.remove(max(shown, key=lambda column: column.rank))
    return [name, *shown], max(_SHORTEST_NAME, min(widths[name], width - others()))


def _cell(column: _Column, layer: LayerReport, text: str, name_width: int) -> Text:
    if column is COLUMNS[0]:
        return _text(_shortened(text, name_width))
    return _text(text, style=column.style(layer))


def _totals(layers: Sequence[LayerReport]) -> dict[str, str]:
    return {
        "layer": "total",
        "scales": str(sum(layer.scales for layer in layers)),
        "float": format_bytes(sum(layer.bytes_before for layer in layers)),
        "quantized": format_bytes(sum(layer.bytes_after for layer in layers)),
    }


def _listing(title: str, lines: Sequence[str]) -> RenderableType | None:
    return Group(_text(f"{title}:"), *_indented(lines)) if lines else None


def _indented(lines: Sequence[str]) -> Iterator[RenderableType]:
    return (Padding(_text(line), (0, 0, 0, 2)) for line in lines)


def _text(text: str, style: str = "") -> Text:
    """Text of which no name can move the cursor or change colours."""
    return Text(printable(text), style=style)


def _shortened(cell: str, longest: int) -> str:
    """Cut the middle out of a cell that would make the table too wide; both ends of a layer name tell it apart."""
    if len(cell) <= longest:
        return cell
    half = (longest - 3) // 2
    return f"{cell[:half]}...{cell[-(longest - 3 - half) :]}"
