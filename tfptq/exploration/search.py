"""Search the smallest, or fastest, file that loses no more than is allowed."""

import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tfptq.base.arguments import between, whole_number
from tfptq.base.files import check_folder
from tfptq.base.progress import Progress
from tfptq.config import QuantizationConfig, Target
from tfptq.exploration.goal import Goal, samples_needed
from tfptq.exploration.result import SearchResult
from tfptq.exploration.strategy import propose
from tfptq.exploration.trial import Trial
from tfptq.exploration.trial_folder import TrialFolder
from tfptq.exploration.workbench import Workbench
from tfptq.pipeline.result import QuantizationResult, warn_of_findings
from tfptq.report import Report
from tfptq.report.values import Trial as PlotPoint


def search(
    model: Any,
    calibration: Any,
    evaluation: Any,
    *,
    max_drop: float = 0.01,
    objective: str = "bytes",
    target: Target | str = "cpu",
    latency_budget: float = QuantizationConfig.latency_budget,
    metric: Any = "accuracy",
    labels: Any = None,
    signature: str | None = None,
    most_trials: int = 9,
    budget_seconds: float | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SearchResult:
    """Search for the smallest or fastest file whose metric drops by at most ``max_drop``.

    The search tries the default preset, then 8 and 4 bits with scales per channel, then mixed precision of 2, 4 and 8
    bits by sensitivity, for which it bisects the size; last, for comparison, bits by coding length at the same size. A
    file is accepted when its drop on the evaluation samples plus one standard error is at most ``max_drop``: on other
    samples, the drop is then below that in five cases of six. This needs enough samples: a file that predicts another
    class on 4 % of 400 samples has a standard error of one point.

    Args:
        model: what ``quantize`` takes.
        calibration: samples as for ``quantize_keras_model``.
        evaluation: held-out samples, with labels, as for ``tfptq.evaluate``. Without labels, predictions that differ
            from those of the float model count as errors.
        max_drop: in the unit of the metric: 0.01 is one point of accuracy.
        objective: ``"bytes"``, or ``"latency"`` on this machine; of files that are equally fast, the smallest.
        target: kind of device that the file is for.
        latency_budget: maximum latency of smaller files as a multiple of INT8, as in ``QuantizationConfig``.
        metric: as for ``tfptq.evaluate``. Higher is better, except for Keras metrics that measure an error.
        labels: labels, if they are not in ``evaluation``.
        signature: key of the signature of a SavedModel or ``.tflite`` file; the first by default.
        most_trials: maximum number of files to make.
        budget_seconds: no trial starts later than this, except the first.
        checkpoint_dir: folder for finished trials, and for finished weights of the current one. A search that was
            interrupted, or whose budget ended, continues from there when it is called again.
        seed: random seed.
        progress: show progress when standard error is a terminal.

    Returns:
        The best file, with the warnings of its report, and all trials. If no file is within the drop, the one with the
        smallest drop, with a warning.

    Raises:
        ValueError: an argument cannot be used; the message says why.
        OSError: ``checkpoint_dir`` cannot be written.

    Examples:
        >>> found = tfptq.search(model, images[:256], (test_images, test_labels), max_drop=0.01)
        >>> print(found)
        >>> found.best.save("net.tflite")
    """
    goal = Goal(max_drop, objective, Target.from_plain(target), latency_budget)
    most_trials, seed = whole_number("most_trials", most_trials, 1000), whole_number("seed", seed, 2**64 - 1)
    between("most_trials", most_trials, 1, 1000)
    check_folder(checkpoint_dir)
    bench = Workbench.of(
        model,
        calibration,
        evaluation,
        signature=signature,
        labels=labels,
        metric=metric,
        seed=seed,
        times=goal.measures_latency,
    )
    if checkpoint_dir is not None:
        bench = replace(bench, folder=TrialFolder(checkpoint_dir, bench.inputs()))
    trials, result, complete = _run(bench, goal, most_trials, budget_seconds, Progress(progress))
    best = goal.best(trials)
    notes = tuple(_warnings(trials, goal, complete))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    result = bench.quantize(best.proposal) if result is None else result
    warn_of_findings(result)
    result = replace(result, report=_with_trials(result.report, trials, best))
    findings = map(str, result.report.findings)
    return SearchResult(result, best, goal.accepts(best), tuple(trials), goal, (*notes, *findings))


def _run(
    bench: Workbench, goal: Goal, most_trials: int, budget_seconds: float | None, steps: Progress
) -> tuple[list[Trial], QuantizationResult | None, bool]:
    """All trials, the result of the best one if this call has it, and whether the search came to its end in time."""
    end = None if budget_seconds is None else time.monotonic() + budget_seconds
    trials: list[Trial] = []
    kept: tuple[Trial, QuantizationResult] | None = None  # others would only take memory
    ladder = cache(lambda: bench.ladder(goal))  # once, and only when it is needed
    while (proposal := propose(trials, goal, most_trials, ladder)) is not None:
        trial = None if bench.folder is None else bench.folder.find(proposal)
        if trial is None:
            if trials and end is not None and time.monotonic() > end:
                break
            with steps.step(f"trial {len(trials) + 1} of at most {most_trials}: {proposal.name}", total=2) as advance:
                trial, result = bench.try_out(proposal, advance)
            kept = (trial, result) if goal.best([*trials, trial]) is trial else kept
        trials.append(trial)
    best = goal.best(trials)
    return trials, kept[1] if kept is not None and kept[0] is best else None, proposal is None


def _with_trials(report: Report, trials: Sequence[Trial], best: Trial) -> Report:
    """The report with all trials in its plot, by what they gain against the float model."""
    unit = "agreement" if best.by_agreement else best.evaluation.scores[0].metric
    points = (
        PlotPoint(trial.proposal.name, trial.evaluation.bytes, -trial.drop, trial is best)
        for trial in trials
        if math.isfinite(trial.drop)
    )
    return replace(report, trials=tuple(points), quality_name=f"{unit}, less that of float")


def _warnings(trials: Sequence[Trial], goal: Goal, complete: bool) -> Iterator[str]:
    best = goal.best(trials)
    if not complete:
        yield f"the budget of time ended after {len(trials)} trials; with checkpoint_dir, the same call goes on"
    if best.error is None:
        yield "the standard error of the metric is not known: give a function that returns a number for each sample"
    if not goal.accepts(best):
        yield (
            f"no file is within a drop of {goal.max_drop:g}; the best one loses {best.drop:.4f} with a standard error "
            f"of {best.error or 0.0:.4f}. More evaluation samples make the error smaller; where the drop itself is too "
            "large, more calibration samples, a larger max_drop, or activation_bits=16 may help"
        )
    undecided = goal.undecided(trials)
    if undecided:
        smallest = undecided[0]
        yield (
            f"{smallest.evaluation.samples} evaluation samples are too few to tell whether smaller files are within a "
            f"drop of {goal.max_drop:g}: {smallest.proposal.name!r} loses {smallest.drop:.4f} with a standard error of "
            f"{smallest.error:.4f}; about {samples_needed(smallest, goal.max_drop):,} samples would tell"
        )
