"""Picture of a search: what each file loses over its bytes, and over its latency."""

import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfptq.base.files import write_atomically
from tfptq.exploration.goal import Goal
from tfptq.exploration.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".pdf", ".png", ".svg")


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn.

    Raises:
        ValueError: matplotlib is not installed, or the ending of the path is none of ``FORMATS``.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"the picture {path} must end in {', '.join(FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the picture needs matplotlib; install it with: pip install matplotlib")


def write_picture(path: Path, trials: Sequence[Trial], best: Trial, goal: Goal) -> Path:
    """Draw all trials, the front of those that no other beats, and the drop that is allowed."""
    check_picture(path)
    from matplotlib.figure import Figure

    measures: dict[str, Callable[[Trial], float]] = {"kB": lambda trial: goal.bytes(trial) / 1000}
    if all(trial.evaluation.latency is not None and trial.evaluation.latency.ratio for trial in trials):
        measures["latency, times that of float"] = _latency
    figure = Figure(figsize=(6.4 * len(measures), 4.8), layout="constrained")
    for axes, (label, measure) in zip(
        figure.subplots(1, len(measures), squeeze=False)[0], measures.items(), strict=True
    ):
        _draw(axes, trials, best, goal, measure)
        axes.set(xlabel=label, ylabel="drop, with one standard error")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=120)
    return write_atomically(path, content.getvalue())


def _latency(trial: Trial) -> float:
    latency = trial.evaluation.latency
    return (latency.ratio if latency else None) or math.nan


def _draw(axes: "Axes", trials: Sequence[Trial], best: Trial, goal: Goal, measure: Callable[[Trial], float]) -> None:
    values = [measure(trial) for trial in trials]
    middle = (min(values) + max(values)) / 2
    for trial in trials:
        colour = "tab:green" if goal.accepts(trial) else "tab:red"
        place = measure(trial), trial.drop
        axes.errorbar(*place, yerr=trial.error or 0.0, fmt="o", color=colour, ecolor="lightgray", capsize=3)
        side, shift = ("left", 7) if place[0] <= middle else ("right", -7)  # towards the middle
        axes.annotate(trial.proposal.name, place, xytext=(shift, 3), textcoords="offset points", fontsize=7, ha=side)
    axes.plot(measure(best), best.drop, "o", ms=14, mfc="none", mec="tab:green", label="chosen")
    edge = front([(measure(trial), trial.drop) for trial in trials])
    axes.plot(*zip(*edge, strict=True), "--", color="tab:gray", lw=1, label="no other is better at both")
    axes.axhline(goal.max_drop, color="black", lw=0.8, label="largest drop")
    axes.margins(x=0.15, y=0.15)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one is below and left of, from the left."""
    found: list[tuple[float, float]] = []
    for point in sorted(points):
        if not found or point[1] < found[-1][1]:
            found.append(point)
    return found
