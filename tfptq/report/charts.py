"""Geometry of the pictures on the page of a report; the templates draw it as SVG.

A bar is ``x, y, width, height`` in a box as wide as there are bars, and 100 high, with y counted downwards; the box is
stretched to the room that there is. Its kind is the CSS class that colours it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfptq.report.units import format_bytes, format_decibels, ratio_kind
from tfptq.report.values import Distribution, LayerReport, Trial

#: Top of the charts of ratios.
TOP_DB = 60.0
#: With more layers, charts name only the first and the last.
MOST_LABELS = 10
#: A grid with more points has its ends drawn only.
MOST_POINTS = 40
_HEIGHT, _LEAST_HEIGHT = 100.0, 2.0
#: Part of the room of a bar that it takes.
_FILL = 0.8


@dataclass(frozen=True)
class Bar:
    """A bar with its tooltip."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str = ""


@dataclass(frozen=True)
class Line:
    """A horizontal line of a chart, with what it stands for."""

    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Bars side by side; ``labels`` go below, evenly spread."""

    width: int
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...] = ()
    labels: tuple[str, ...] = ()


def ratios_chart(layers: Sequence[LayerReport]) -> Chart:
    """Signal to noise along the depth: a bar for the output of each layer, a mark on it for its weights."""
    bars = []
    for at, layer in enumerate(layers):
        output = format_decibels(layer.output_snr_db, layer.constant)
        title = (
            f"{layer.name}: output {output} dB, weights {format_decibels(layer.weight_snr_db)} dB, {layer.bits} bits"
        )
        height = _HEIGHT if layer.constant else _ratio_height(layer.output_snr_db)
        bars.append(_bar(at, height, "constant" if layer.constant else ratio_kind(layer.output_snr_db), title))
        mark = _ratio_height(layer.weight_snr_db)
        bars.append(Bar(at + 0.5 - _FILL / 2, _HEIGHT - mark, _FILL, 1.2, "mark", title))
    lines = tuple(Line(_HEIGHT - _ratio_height(value), f"{value:.0f} dB") for value in (20.0, 40.0, TOP_DB))
    return Chart(len(layers), tuple(bars), lines, _labels(layers))


def _ratio_height(value: float | None) -> float:
    return 0.0 if value is None else round(_HEIGHT * min(max(value / TOP_DB, 0.01), 1.0), 2)


def bytes_chart(layers: Sequence[LayerReport]) -> Chart:
    """Bytes along the depth: a pale bar for the float file, and one in front of it for the quantized one."""
    most = max((max(layer.bytes_before, layer.bytes_after) for layer in layers), default=0) or 1
    bars = []
    for at, layer in enumerate(layers):
        title = f"{layer.name}: {format_bytes(layer.bytes_after)}, float {format_bytes(layer.bytes_before)}"
        bars.append(_bar(at, _HEIGHT * layer.bytes_before / most, "float", title))
        bars.append(_bar(at, _HEIGHT * layer.bytes_after / most, "bytes", title))
    return Chart(len(layers), tuple(bars), (Line(0.0, format_bytes(most)),), _labels(layers))


def columns_chart(ratios: Sequence[float]) -> Chart:
    """Signal to noise of the columns of an output."""
    bars = (
        _bar(at, _ratio_height(ratio), "good", f"column {at}: {format_decibels(ratio)} dB")
        for at, ratio in enumerate(ratios)
    )
    lines = tuple(Line(_HEIGHT - _ratio_height(value), f"{value:.0f} dB") for value in (20.0, 40.0, TOP_DB))
    return Chart(len(ratios), tuple(bars), lines, ("column 0", f"column {len(ratios) - 1}"))


def _labels(layers: Sequence[LayerReport]) -> tuple[str, ...]:
    names = tuple(layer.name for layer in layers)
    return names if len(names) <= MOST_LABELS else (names[0], names[-1])


def _bar(at: int, height: float, kind: str, title: str) -> Bar:
    return Bar(at + 0.5 - _FILL / 2, round(_HEIGHT - height, 2), _FILL, round(height, 2), kind, title)


@dataclass(frozen=True)
class HistogramChart:
    """A histogram on its grid.

    Attributes:
        chart: bars as high as the square roots of their counts; those outside of the grid are ``cut``.
        grid: where the grid begins and ends, in bins.
        points: the points of a coarse grid, in bins; none of a fine one.
        low: left end of the histogram.
        high: right end.
        note: the grid, and what lies beyond it, in words.
    """

    chart: Chart
    grid: tuple[float, float]
    points: tuple[float, ...]
    low: str
    high: str
    note: str


def histogram_chart(values: Distribution, unit: str = "") -> HistogramChart:
    """Draw a histogram; ``unit`` follows the numbers of its grid."""
    bins = len(values.counts)
    width = (values.high - values.low) / bins or 1.0

    def place(value: float) -> float:
        return round(min(max((value - values.low) / width, 0.0), float(bins)), 3)

    most = math.sqrt(max(values.counts, default=0)) or 1.0
    middles = (values.low + (at + 0.5) * width for at in range(bins))
    margin = values.step / 2
    beyond = [not values.grid_low - margin <= middle <= values.grid_high + margin for middle in middles]
    bars = tuple(
        _histogram_bar(at, math.sqrt(count) / most, "cut" if cut else "count")
        for at, (count, cut) in enumerate(zip(values.counts, beyond, strict=True))
        if count
    )
    share = sum(count for count, cut in zip(values.counts, beyond, strict=True) if cut) / max(sum(values.counts), 1)
    count = round((values.grid_high - values.grid_low) / values.step) + 1
    points = [values.grid_low + at * values.step for at in range(count)] if count <= MOST_POINTS else []
    note = f"grid {values.grid_low:.4g} to {values.grid_high:.4g}{unit}, {count} points" + (
        f", {share:.2%} beyond it" if share >= 1e-4 else ", less than 0.01% beyond it" if share else ""
    )
    return HistogramChart(
        Chart(bins, bars),
        (place(values.grid_low - values.step / 2), place(values.grid_high + values.step / 2)),
        tuple(place(point) for point in points),
        f"{values.low:.4g}",
        f"{values.high:.4g}",
        note,
    )


def _histogram_bar(at: int, share: float, kind: str) -> Bar:
    """A bar that can be seen however few values it stands for."""
    height = max(round(_HEIGHT * share, 2), _LEAST_HEIGHT)
    return Bar(at, round(_HEIGHT - height, 2), 1.0, height, kind)


@dataclass(frozen=True)
class Point:
    """A trial in the plot of size against quality, in a box of 100 by 100."""

    x: float
    y: float
    trial: Trial
    best: bool


def trial_points(trials: Sequence[Trial]) -> tuple[Point, ...]:
    """Places of trials by bytes and quality; ``best`` are those that no other beats in both."""
    sizes, qualities = [trial.file_bytes for trial in trials], [trial.quality for trial in trials]
    return tuple(
        Point(
            _place(trial.file_bytes, sizes), _HEIGHT - _place(trial.quality, qualities), trial, _is_best(trial, trials)
        )
        for trial in sorted(trials, key=lambda it: it.file_bytes)
    )


def _place(value: float, among: Sequence[float]) -> float:
    """5 for the least and 95 for the largest, 50 where all are equal."""
    low, high = min(among), max(among)
    return round(5.0 + 90.0 * (value - low) / (high - low), 2) if high > low else 50.0


def _is_best(trial: Trial, trials: Sequence[Trial]) -> bool:
    return not any(
        other.file_bytes <= trial.file_bytes
        and other.quality >= trial.quality
        and (other.file_bytes, other.quality) != (trial.file_bytes, trial.quality)
        for other in trials
    )
