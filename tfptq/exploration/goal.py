"""What a search wants of a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfptq.base.arguments import between, one_of
from tfptq.config import TARGETS, QuantizationConfig, Target
from tfptq.exploration.trial import Trial

OBJECTIVES = ("bytes", "latency")
#: Files whose latencies differ by a smaller share count as equally fast.
LATENCY_NOISE = 0.03
#: What sums of shares may be off by.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Goal:
    """The fewest bytes, or the least latency, within a drop.

    Attributes:
        max_drop: largest drop of the metric, one standard error of it included.
        objective: ``"bytes"`` or ``"latency"``.
        target: what the files are for.
        latency_budget: multiple of the latency of INT8 that layouts may cost, where bytes count.
    """

    max_drop: float
    objective: str = "bytes"
    target: Target = TARGETS["cpu"]
    latency_budget: float = QuantizationConfig.latency_budget

    def __post_init__(self):
        one_of("objective", self.objective, OBJECTIVES)
        between("max_drop", self.max_drop, 0.0, 1e9)
        if self.objective == "latency" and not self.measures_latency:
            raise ValueError(
                f"objective='latency' is measured on this machine, which tells nothing of target {self.target.name!r}; "
                "take objective='bytes'"
            )

    @property
    def measures_latency(self) -> bool:
        """Whether times of this machine say anything of the target."""
        return self.target.costs is not None

    def accepts(self, trial: Trial) -> bool:
        """Whether a file is within the drop with one standard error of it."""
        return trial.drop + (trial.error or 0.0) <= self.max_drop + ROUNDING

    def bytes(self, trial: Trial) -> int:
        """Size of a file; for compilers that compress codes of few bits in INT8, with these packed."""
        spared = trial.weight_bytes - trial.packed_weight_bytes if self.target.narrow_int8 else 0
        return trial.evaluation.bytes - spared

    def best(self, trials: Sequence[Trial]) -> Trial:
        """The best of the accepted ones; where none is, the one that loses least."""
        accepted = [trial for trial in trials if self.accepts(trial)]
        if not accepted:
            return min(trials, key=lambda trial: trial.drop + (trial.error or 0.0))
        if self.objective == "latency":
            fastest = min(map(_milliseconds, accepted))
            accepted = [trial for trial in accepted if _milliseconds(trial) <= (1 + LATENCY_NOISE) * fastest]
        return min(accepted, key=self.bytes)

    def undecided(self, trials: Sequence[Trial]) -> list[Trial]:
        """Files that would be better, and that nothing but the standard error excludes."""
        better = [
            trial
            for trial in trials
            if trial.drop <= self.max_drop
            and not self.accepts(trial)
            and (not self.accepts(self.best(trials)) or self.bytes(trial) < self.bytes(self.best(trials)))
        ]
        return sorted(better, key=self.bytes)


def _milliseconds(trial: Trial) -> float:
    """Time against that of the float model beside it, which saw the same machine."""
    latency = trial.evaluation.latency
    return math.inf if latency is None else (latency.ratio or latency.milliseconds)


def samples_needed(trial: Trial, max_drop: float) -> int:
    """Number of samples with which a file of this drop would be accepted, or rejected, by about one standard error."""
    room = max(max_drop - trial.drop, max_drop / 4) or 1.0
    return math.ceil(trial.evaluation.samples * ((trial.error or 0.0) / room) ** 2)
