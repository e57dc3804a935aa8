"""What a search found, as values, a table, JSON and a picture."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tfptq.exploration.goal import Goal
from tfptq.exploration.pareto import write_picture
from tfptq.exploration.trial import Trial
from tfptq.pipeline.result import QuantizationResult

_HEADER = ("trial", "bytes", "latency", "drop", "agreement", "dB", "within", "s")


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What ``search`` returns.

    Attributes:
        best: the best file, as ``quantize_keras_model`` returns it: within the drop, or the one that loses least.
        best_trial: the trial that it is of.
        reached: whether it is within the drop.
        trials: all trials, in their order.
        goal: what was wanted.
        warnings: what to know of the outcome, and what is wrong with the best file.
    """

    best: QuantizationResult
    best_trial: Trial
    reached: bool
    trials: tuple[Trial, ...]
    goal: Goal
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        state = "within" if self.reached else "not within"
        return (
            f"<SearchResult: {self.best_trial.proposal.name}, {state} a drop of {self.goal.max_drop:g}; {self.best!r}>"
        )

    def render(self) -> str:
        """A table, the best trial marked, and the warnings."""
        rows = [_HEADER, *map(self._row, self.trials)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        unit = "decisions other than those of float" if self.best_trial.by_agreement else "the metric"
        what = f"fewest {self.goal.objective}" if self.goal.objective == "bytes" else "least latency"
        head = f"{what} within a drop of {self.goal.max_drop:g} ({unit}), one standard error included"
        return "\n".join([head, *lines, *(f"warning: {text}" for text in self.warnings)])

    def __str__(self) -> str:
        return self.render()

    def _row(self, trial: Trial) -> tuple[str, ...]:
        found, latency = trial.evaluation, trial.evaluation.latency
        error = "" if trial.error is None else f" ± {trial.error:.4f}"
        return (
            f"{'*' if trial is self.best_trial else ' '} {trial.proposal.name}",
            f"{self.goal.bytes(trial):,}",
            "" if latency is None or latency.ratio is None else f"x {latency.ratio:.2f}",
            f"{trial.drop:+.4f}{error}",
            "" if found.agreement is None else f"{100 * found.agreement:.2f} %",
            "" if found.snr_db is None else f"{found.snr_db:.1f}",
            "yes" if self.goal.accepts(trial) else "no",
            f"{trial.seconds:.0f}",
        )

    def save_plot(self, path: str | os.PathLike) -> Path:
        """Draw drop over bytes, and over latency where it was measured, as PNG, SVG or PDF by the ending of the path.

        Raises:
            ValueError: matplotlib is not installed (``tfptq[plots]``), or does not know the ending.
            OSError: the path cannot be written.
        """
        return write_picture(Path(path), self.trials, self.best_trial, self.goal)

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text of all trials, with their configs and evaluations."""
        values = {
            "objective": self.goal.objective,
            "target": self.goal.target.to_plain(),
            "max_drop": self.goal.max_drop,
            "reached": self.reached,
            "best": self.best_trial.proposal.name,
            "trials": [{**trial.to_dict(), "within": self.goal.accepts(trial)} for trial in self.trials],
            "warnings": list(self.warnings),
        }
        return json.dumps(values, indent=indent)
