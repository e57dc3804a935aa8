"""What an evaluation found, as values, a table and JSON."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tfptq.base import json_values
from tfptq.base.text import counted
from tfptq.evaluation.fidelity import Fidelity
from tfptq.evaluation.latency import Latency
from tfptq.evaluation.metrics import Score

_HEADER = ("", "float", "file", "difference")


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a file on samples, compared with the float model if there is one.

    Attributes:
        samples: number of samples.
        bytes: size of the file.
        float_bytes: size of the float model as a file, or None without one.
        scores: what the metric says of each output that it judges; empty without labels or metric.
        fidelities: each output against the float model; empty without one.
        latency: time of an inference, or None where it was not measured.
        warnings: on labels that do not fit the float model.
    """

    samples: int
    bytes: int
    float_bytes: int | None
    scores: tuple[Score, ...]
    fidelities: tuple[Fidelity, ...]
    latency: Latency | None
    warnings: tuple[str, ...] = ()

    @property
    def score(self) -> float | None:
        """The metric of the file, in the mean over outputs; None without one."""
        return _mean([score.value for score in self.scores])

    @property
    def float_score(self) -> float | None:
        """The metric of the float model, in the mean over outputs; None without one."""
        return _mean([score.float_value for score in self.scores])

    @property
    def drop(self) -> float | None:
        """How much worse the file is than the float model: positive, also for metrics that measure an error."""
        return _mean([score.drop for score in self.scores])

    @property
    def drop_error(self) -> float | None:
        """Upper bound of the standard error of ``drop``: errors of several outputs are taken as fully correlated."""
        return _mean([score.drop_error for score in self.scores])

    @property
    def agreement(self) -> float | None:
        """Share of predicted classes that are those of the float model; mean over outputs with classes."""
        return _mean([item.agreement for item in self._deciding])

    @property
    def agreement_error(self) -> float | None:
        """Upper bound of the standard error of ``agreement``."""
        return _mean([item.agreement_error for item in self._deciding])

    @property
    def snr_db(self) -> float | None:
        """Signal to noise in dB of the worst output."""
        return min((item.snr_db for item in self.fidelities), default=None)

    @property
    def _deciding(self) -> list[Fidelity]:
        return [item for item in self.fidelities if item.agreement is not None]

    def render(self) -> str:
        """A small table, and the warnings."""
        rows = [_HEADER, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        return "\n".join([counted(self.samples, "sample"), *lines, *(f"warning: {text}" for text in self.warnings)])

    def __str__(self) -> str:
        return self.render()

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        for score in self.scores:
            yield _score_row(score, several=len(self.scores) > 1)
        for item in self.fidelities:
            named = f" of {item.output}" if len(self.fidelities) > 1 else ""
            if item.agreement is not None:
                error = "" if item.agreement_error is None else f"± {100 * item.agreement_error:.2f} points"
                yield f"agreement{named}", "", f"{100 * item.agreement:.2f} %", error
            yield f"signal to noise{named}", "", f"{item.snr_db:.1f} dB", ""
        if self.latency is not None:
            times = self.latency.float_milliseconds, self.latency.milliseconds
            yield "latency, one thread", *_against(*times, lambda value: f"{value:.3g} ms")
        yield "bytes", *_against(self.float_bytes, self.bytes, lambda value: f"{value:,.0f}")

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text; ``from_json`` gives an equal evaluation back. Infinity becomes the text ``"inf"``."""
        return json_values.to_json(self, indent)

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """Read what ``to_json`` wrote; a ValueError if it is no evaluation."""
        return json_values.from_json(cls, text, "an evaluation")


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean, or None where a value is missing or there is none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _against(before: float | None, now: float, shown: Callable[[float], str]) -> tuple[str, str, str]:
    """Cells of a quantity, and of its ratio to that of the float model."""
    return ("", shown(now), "") if before is None else (shown(before), shown(now), f"x {now / before:.2f}")


def _score_row(score: Score, several: bool) -> tuple[str, str, str, str]:
    factor, digits, unit, points = (100, 2, " %", " points") if score.metric == "accuracy" else (1, 4, "", "")
    name = f"{score.metric} of {score.output}" if several else score.metric
    value = f"{factor * score.value:.{digits}f}{unit}"
    if score.float_value is None:
        return name, "", value, ""
    error = "" if score.drop_error is None else f" ± {factor * score.drop_error:.{digits}f}"
    difference = f"{factor * (score.value - score.float_value):+.{digits}f}{error}{points}"
    return name, f"{factor * score.float_value:.{digits}f}{unit}", value, difference
