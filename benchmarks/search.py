"""Does the search keep its promise on samples it has not seen? ``python -m benchmarks.search [--networks ...]``.

The evaluation samples of a network are split at random: the search, and the presets beside it, are judged on one half,
and what they choose on the other one. Each seed has a split and a draw of calibration samples of its own. The best
single preset is the smallest one that the search's own rule accepts on the same half; for target ``npu``, bytes count
codes packed at their bits, as compilers compress them.

Finished draws are kept in ``benchmarks/results/search.json``.
"""

import argparse
import sys
from typing import Any

import numpy as np

from benchmarks import zoo
from benchmarks.records import Records
from benchmarks.tables import met, table, write_tables
from tfptq import Evaluation, QuantizationConfig, QuantizationResult, evaluate, quantize_keras_model, search
from tfptq.exploration.goal import Goal
from tfptq.exploration.trial import Proposal, Trial

RESULTS = Records("search")
NETWORKS = ("kws01", "vww01", "ic01", "resnet20", "mobilenetv2")
#: Target -> presets that are made for it.
PRESETS = {
    "cpu": ("w8a8_shift", "w8a8_channel", "w4a8_channel", "w4a8_mixed", "w2_mixed"),
    "npu": ("w8a8_shift", "w8a8_channel", "w4a8_channel", "w4a8_mixed", "w2_mixed", "w4a8_block", "w4a8_fine_block"),
}
#: Two points of accuracy: with some 450 samples, one has a standard error of about half a point at 4 bits.
MAX_DROP = 0.02
SEEDS = (1, 2, 3)
#: Calibration samples of a draw: three quarters of what there is where there are few, 256 elsewhere.
SAMPLES = {"vww01": 96, "kws01": 90}
QUICK = {"latency_seconds": 0.0, "progress": False}


def measure_draw(network: str, target: str, seed: int) -> dict[str, Any]:
    """Search on one half of the evaluation samples, and judge what was found on the other one."""
    model = zoo.load(network, SAMPLES.get(network, 256), draw=seed)
    x, y = model.evaluation
    y = y + model.entry.first_class  # as ``evaluate`` counts the outputs
    order = np.random.default_rng(seed).permutation(len(x))
    seen, unseen = ((x[part], y[part]) for part in np.array_split(order, 2))
    found = search(
        model.keras_model, model.calibration, seen, max_drop=MAX_DROP, target=target, progress=False, seed=seed
    )
    presets = _presets(model, target, seed, seen)
    trials = [trial for trial, _ in presets]
    best = found.goal.best(trials)
    result = next(result for trial, result in presets if trial is best)
    by_length = [trial for trial in found.trials if trial.proposal.by == "coding_length"]
    return {
        "search": _record(found.best_trial, found.goal, evaluate(found.best, unseen, model.keras_model, **QUICK)),
        "preset": _record(best, found.goal, evaluate(result, unseen, model.keras_model, **QUICK)),
        "trials": len(found.trials),
        "seconds": sum(trial.seconds for trial in found.trials),
        "coding_length": _compared(by_length[0], found.trials, found.goal) if by_length else None,
    }


def _presets(
    model: zoo.ZooModel, target: str, seed: int, seen: tuple[np.ndarray, np.ndarray]
) -> list[tuple[Trial, QuantizationResult]]:
    made = []
    for name in PRESETS[target]:
        config = QuantizationConfig.from_preset(name).replace(target=target)
        result = quantize_keras_model(model.keras_model, model.calibration, config, seed=seed, progress=False)
        judged = evaluate(result, seen, model.keras_model, **QUICK)
        made.append((Trial.of(Proposal(name, config), result.tflite, judged, 0.0), result))
    return made


def _record(trial: Trial, goal: Goal, unseen: Evaluation) -> dict[str, Any]:
    return {
        "name": trial.proposal.name,
        "bytes": goal.bytes(trial),
        "accepted": goal.accepts(trial),
        "drop": trial.drop,
        "error": trial.error,
        "unseen_drop": unseen.drop,
        "unseen_error": unseen.drop_error,
    }


def _compared(by_length: Trial, trials: tuple[Trial, ...], goal: Goal) -> dict[str, Any]:
    """Coding length beside sensitivity at the same ratio."""
    ratio = by_length.proposal.ratio
    other = next(it for it in trials if it.proposal.by == "sensitivity" and it.proposal.ratio == ratio)
    pair = {"coding_length": by_length, "sensitivity": other}
    return {
        name: {"bytes": goal.bytes(it), "drop": it.drop, "snr_db": it.evaluation.snr_db} for name, it in pair.items()
    }


def page(records: dict[str, dict[str, Any]]) -> str:
    """One row for each network and target."""
    head = ["network", "target", "bytes", "best preset, bytes", "ratio", "drop, seen", "drop, unseen"]
    rows = []
    for network in NETWORKS:
        for target in PRESETS:
            draws = [record for name, record in records.items() if name.startswith(f"{network} {target} ")]
            if draws:
                rows.append([network, f"`{target}`", *_cells(draws)])
    compared = ["within, unseen", "no more bytes", "coding length, dB", "trials", "s"]
    return table([*head, *compared], rows)


def _cells(draws: list[dict[str, Any]]) -> list[str]:
    ours, presets = ([draw[name] for draw in draws] for name in ("search", "preset"))
    ratios = [mine["bytes"] / its["bytes"] for mine, its in zip(ours, presets, strict=True)]
    names = " / ".join(f"`{name}`" for name in dict.fromkeys(it["name"] for it in presets))
    within = sum(it["unseen_drop"] <= MAX_DROP for it in ours)
    lengths = [draw["coding_length"] for draw in draws if draw["coding_length"]]
    gains = [it["coding_length"]["snr_db"] - it["sensitivity"]["snr_db"] for it in lengths]
    return [
        f"{np.mean([it['bytes'] for it in ours]):,.0f}",
        f"{np.mean([it['bytes'] for it in presets]):,.0f} ({names})",
        " / ".join(f"{ratio:.2f}" for ratio in ratios),
        _points(it["drop"] for it in ours),
        _points(it["unseen_drop"] for it in ours),
        f"{within} of {len(draws)} {met(within == len(draws))}",
        f"{sum(ratio <= 1.0 for ratio in ratios)} of {len(draws)} {met(max(ratios) <= 1.0)}",
        f"{np.mean(gains):+.1f}" if gains else "",
        " / ".join(str(draw["trials"]) for draw in draws),
        f"{np.mean([draw['seconds'] for draw in draws]):.0f}",
    ]


def _points(drops) -> str:
    return " / ".join(f"{100 * drop:+.1f}" for drop in drops)


def main() -> int:
    """Measure what is missing, draw by draw, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--targets", nargs="+", default=tuple(PRESETS), choices=tuple(PRESETS))
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    for seed in SEEDS if not arguments.tables_only else ():
        for network in arguments.networks:
            for target in arguments.targets:
                name = f"{network} {target} {seed}"
                if name not in RESULTS.read():
                    record = measure_draw(network, target, seed)
                    RESULTS.keep(name, record)
    write_tables({"search": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
