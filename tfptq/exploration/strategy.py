"""What to try next: three presets, then mixed precision at the ratio of bytes that bisection leads to.

Pure functions of what was tried, so that a search which was killed goes on where it stopped.
"""

from collections.abc import Callable, Sequence

from tfptq.config import MixedPrecision, QuantizationConfig
from tfptq.core.affine import WEIGHT_BITS
from tfptq.exploration.goal import Goal
from tfptq.exploration.trial import Proposal, Trial

#: The default, the most accurate at 8 bits, and 4 bits everywhere.
DEFAULT, WIDEST, NARROW = "w8a8_shift", "w8a8_channel", "w4a8_channel"
#: What mixed precision chooses from, and the ratios of bytes to those in INT8 that it may have.
WIDTHS, RATIOS = (2, 4, 8), tuple(round(0.2 + 0.01 * step, 2) for step in range(80))
#: Bisection ends at this difference of ratios.
RESOLUTION = 0.02


def propose(
    trials: Sequence[Trial], goal: Goal, most_trials: int, ladder: Callable[[], Sequence[float]]
) -> Proposal | None:
    """The next proposal, or None when the search is over.

    Where 8 bits lose too much, fewer would only lose more. The last trial is left for coding lengths, at the ratio that
    was found for sensitivity.

    Args:
        trials: what was tried.
        goal: what is wanted.
        most_trials: how many there may be.
        ladder: ratios that lead to different widths, ascending.
    """
    tried = {trial.proposal.name for trial in trials}
    if len(trials) >= most_trials:
        return None
    for preset in (DEFAULT, WIDEST, NARROW):
        if preset not in tried:
            return Proposal(preset, _for_goal(QuantizationConfig.from_preset(preset), goal))
    if not any(goal.accepts(trial) for trial in trials):
        return None
    ratio = next_ratio(trials, goal, ladder()) if len(trials) < most_trials - 1 else None
    if ratio is not None:
        return mixed(goal, "sensitivity", ratio)
    best = goal.best(trials).proposal
    if best.by == "sensitivity" and best.ratio is not None:
        other = mixed(goal, "coding_length", best.ratio)
        return None if other.name in tried else other
    return None


def mixed(goal: Goal, by: str, ratio: float) -> Proposal:
    """Mixed precision at a ratio of the bytes in INT8."""
    bits = MixedPrecision(WEIGHT_BITS if goal.target.narrow_int8 else WIDTHS, by, ratio=ratio)
    config = QuantizationConfig.from_preset(NARROW).replace(mixed_precision=bits, edge_bits=None, name="custom")
    return Proposal(f"mixed by {by.replace('_', ' ')}, ratio {ratio:.3g}", _for_goal(config, goal), ratio, by)


def _for_goal(config: QuantizationConfig, goal: Goal) -> QuantizationConfig:
    """A config for the target; nothing is slower than INT8 where latency counts."""
    if goal.objective == "latency":
        return config.replace(target=goal.target, layout="speed")
    return config.replace(target=goal.target, latency_budget=goal.latency_budget)


def next_ratio(trials: Sequence[Trial], goal: Goal, ladder: Sequence[float]) -> float | None:
    """The step of the ladder in the middle between those that are accepted and those that are not; None at the end."""
    low, high = 0.0, 1.0
    for trial in trials:
        if goal.accepts(trial):
            high = min(high, trial.proposal.ratio or _ratio(trial, trials, goal))
        elif trial.proposal.by == "sensitivity":
            low = max(low, trial.proposal.ratio or 0.0)
    between = [ratio for ratio in ladder if low < ratio < high]
    if not between or high - between[0] < RESOLUTION:
        return None
    middle = (max(low, between[0]) + high) / 2
    return min(between, key=lambda ratio: abs(ratio - middle))


def _ratio(trial: Trial, trials: Sequence[Trial], goal: Goal) -> float:
    """Bytes of the codes of a file, in units of those of 8 bits everywhere."""
    (whole,) = (it for it in trials if it.proposal.name == WIDEST)
    packed = goal.target.narrow_int8
    ours, theirs = ((it.packed_weight_bytes if packed else it.weight_bytes) for it in (trial, whole))
    return ours / max(theirs, 1)
