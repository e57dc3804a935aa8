"""What the pictures have in common: colours, axes, boxes and arrows, and how they are saved."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

#: They stay apart when the dark scheme inverts lightness, and for those who see red and green alike.
BLUE, ORANGE, GREEN, GREY = "#3f51b5", "#d9720b", "#1b8a6b", "#8a8f98"
PALE = {BLUE: "#e3e7fb", ORANGE: "#fdeadb", GREEN: "#dff3ec", GREY: "#eff0f2"}
TEXT = "#20242c"
STYLE = {
    "axes.edgecolor": GREY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "tfptq",
    "text.color": TEXT,
}


def panels(width: float, height: float, columns: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """A figure of axes side by side; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, **options)[0])


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure for boxes and arrows, in inches from the lower left."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, middle: tuple[float, float], size: tuple[float, float], lines: Sequence[str], colour: str) -> None:
    """A box with a first line in bold, and further ones below it."""
    (x, y), (width, height) = middle, size
    corner = x - width / 2, y - height / 2
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=PALE[colour], edgecolor=colour, linewidth=1.2)
    )
    step = 0.19
    top = y + step * (len(lines) - 1) / 2
    for index, line in enumerate(lines):
        weight, size_ = ("bold", 10) if index == 0 else ("normal", 9)
        axes.text(x, top - index * step, line, ha="center", va="center", fontsize=size_, weight=weight, color=TEXT)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], words: str = "") -> None:
    """An arrow with words above its middle."""
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    )
    if words:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x, y + 0.07, words, ha="center", va="bottom", fontsize=8.5, style="italic", color=TEXT)


def write(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure in the common style into an SVG file, the same bytes each time."""
    with mpl.rc_context(STYLE):
        draw().savefig(path, format="svg", metadata={"Date": None, "Creator": None})
