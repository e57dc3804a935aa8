"""Picture of a granularity study: what the outputs gain from more scales."""

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfptq.base.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size of the names of points.
_NAME_SIZE = 7


def require_matplotlib() -> None:
    """Refuse to start a study whose plot cannot be drawn.

    Raises:
        ValueError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the plot needs matplotlib; install it with: pip install matplotlib, or give --noplot")


def write_plot(path: Path, records: list[dict[str, Any]]) -> None:
    """Draw signal to noise, and accuracy or agreement where there is one, over the number of scales, as a PNG."""
    from matplotlib.figure import Figure

    quality = next((name for name in ("accuracy", "agreement") if records[0][name] is not None), None)
    shown = ["snr_db"] if quality is None else ["snr_db", quality]
    figure = Figure(figsize=(6.4 * len(shown), 4.8), layout="constrained")
    labels = {
        "snr_db": "signal to noise of the outputs, dB",
        "accuracy": "accuracy",
        "agreement": "agreement with float",
    }
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for label, points in _lines(records).items():
            points = [point for point in points if point[name] is not None]
            style = "o-" if len(points) > 1 else "s"
            axes.plot([point["scales"] for point in points], [point[name] for point in points], style, label=label)
        axes.set(xscale="log", xlabel="scales", ylabel=labels[name])
        axes.grid(alpha=0.3)
        axes.margins(x=0.08)
        axes.legend()
    figure.draw_without_rendering()  # from here on points have their places on the page
    for axes, name in zip(figure.axes, shown, strict=True):
        drawn = [record for record in records if record[name] is not None]
        _write_names(axes, {(record["scales"], record[name], record["granularity"]) for record in drawn})
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())


def _write_names(axes: "Axes", points: set[tuple[int, float, str]]) -> None:
    """Write the names of points ``(x, y, name)`` beside them, those of the same x one above the other."""
    lowest: dict[int, float] = {}  # x -> where the next name may begin, in pixels
    pixels_per_point = axes.figure.dpi / 72
    for x, y, name in sorted(points):
        own = axes.transData.transform((x, y))[1]
        height = max(own, lowest.get(x, own))
        lowest[x] = height + _NAME_SIZE * pixels_per_point
        offset = (5, (height - own) / pixels_per_point - 0.3 * _NAME_SIZE)
        axes.annotate(name, (x, y), xytext=offset, textcoords="offset points", fontsize=_NAME_SIZE)


def _lines(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Records by what a line has in common, sorted by the number of scales."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda record: record["scales"]):
        if record["granularity"] in ("tensor", "channel"):
            name = f"W{record['bits']} {record['granularity']}"
        else:
            name = f"W{record['bits']} {record['scaler']} blocks{', reordered' if record['reorder'] else ''}"
        lines.setdefault(name, []).append(record)
    return lines
