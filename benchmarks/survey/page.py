"""The tables of the survey."""

from collections import Counter
from collections.abc import Mapping
from statistics import median

from benchmarks.survey.cases import all_cases
from benchmarks.survey.judge import Record, behind, difference
from benchmarks.survey.reasons import REASONS
from benchmarks.tables import table

KINDS = {"structures": "structures", "layers": "`keras.layers`", "ops": "`keras.ops`, behind a kernel"}
INPUT, APPLICATIONS = "`keras.ops`, on the input", "applications"


def tables(records: Mapping[str, Record]) -> dict[str, str]:
    """Name of the markers -> table."""
    measured = {name: record for name, record in records.items() if "tfptq" in record}
    return {
        "survey_counts": _counts(records),
        "survey_behind": _behind(measured),
        "survey_float": _float_operators(measured),
        "survey_unmeasured": _unmeasured(records, measured),
        "survey_applications": _applications(measured),
    }


def _kind(name: str) -> str:
    kind = name.partition(".")[0]
    if kind == APPLICATIONS:
        return "`keras.applications`"
    return INPUT if name.endswith(", input") else KINDS[kind]


def _runs(side: Record) -> bool:
    return "refused" not in side and "broken" not in side


def _counts(records: Mapping[str, Record]) -> str:
    heads = ["", "cases", "both", "tfptq alone", "converter alone", "neither", "median, dB", "behind", "median bytes"]
    rows = []
    for kind in dict.fromkeys(map(_kind, records)):
        own = [record for name, record in records.items() if _kind(name) == kind and "tfptq" in record]
        sides = Counter((_runs(record["tfptq"]), _runs(record["converter"])) for record in own)
        both = [record for record in own if _runs(record["tfptq"]) and _runs(record["converter"])]
        decibels = [found for found in map(difference, both) if found is not None]
        sizes = [record["tfptq"]["bytes"] / record["converter"]["bytes"] for record in both]
        counts = [len(own), *(sides[key] for key in ((True, True), (True, False), (False, True), (False, False)))]
        cells = [f"{median(decibels):+.1f}", str(sum(map(behind, both))), f"{median(sizes):.2f}"]
        rows.append([kind, *map(str, counts), *cells])
    return table(heads, rows)


def _behind(records: Mapping[str, Record]) -> str:
    rows = []
    for name, record in records.items():
        ours, theirs = record["tfptq"], record["converter"]
        refused = not _runs(ours) and _runs(theirs)
        if refused or (_runs(ours) and _runs(theirs) and behind(record)):
            cells = [_decibels(ours), _decibels(theirs), _signed(difference(record))]
            rows.append([f"`{name}`", *cells, REASONS.get(name.removesuffix(", input"), "**no reason found yet**")])
    heads = ["case", "tfptq, dB", "converter, dB", "mean of the draws", "reason"]
    return table(heads, rows) if rows else "Of the cases that were measured, none."


def _float_operators(records: Mapping[str, Record]) -> str:
    """Operators without an integer rule, and in how many cases they are."""
    found: Counter[str] = Counter()
    for record in records.values():
        for text in record["tfptq"].get("float_operators", {}):
            operator, _, reason = text.partition(": ")
            if reason == f"{operator} has no integer rule":
                found[operator] += 1
    return ", ".join(f"{name} ({count})" for name, count in found.most_common())


def _unmeasured(records: Mapping[str, Record], measured: Mapping[str, Record]) -> str:
    """What has no row in the counts."""
    failed = [f"`{name}`" for name in records if name not in measured]
    missing = Counter(_kind(name) for name in all_cases() if name not in records)
    named = [f"{count} of {kind}" for kind, count in missing.items()]
    return f"Keras cannot build: {', '.join(failed) or 'none'}. Not measured yet: {', '.join(named) or 'none'}."


def _applications(records: Mapping[str, Record]) -> str:
    heads = ["network", "kernels", "with 4 bits", "8 bits, dB", "converter, dB", "4 bits, dB", "kB", "converter, kB"]
    rows = []
    for name, record in records.items():
        if not name.startswith(APPLICATIONS):
            continue
        ours, theirs, narrow = (record[who] for who in ("tfptq", "converter", "narrow"))
        title = name.partition(".")[2]
        if "refused" in ours:
            rows.append([title, f"**refused**: {ours['refused'][:120]}", *[""] * 9])
            continue
        kernels, four = sum(ours["bits"].values()), narrow.get("bits", {}).get("4", 0)
        sizes = [f"{side['bytes'] / 1000:.0f}" if "bytes" in side else "" for side in (ours, theirs)]
        seconds = [f"{side['seconds']:.0f}" if "seconds" in side else "" for side in (ours, theirs)]
        decibels = [_decibels(side) for side in (ours, theirs, narrow)]
        floats = Counter(text.partition(":")[0] for text in ours["float_operators"])
        rows.append([title, str(kernels), str(four), *decibels, *sizes, *seconds, ", ".join(floats) or "none"])
    return table([*heads, "s", "converter, s", "in float"], rows)


def _decibels(side: Record) -> str:
    if not _runs(side):
        return "refused" if "refused" in side else "does not run"
    if side.get("db") is None:
        return f"{side['equal']:.1%} equal"
    return f"{side['db']:.1f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"
