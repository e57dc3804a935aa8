"""Turn records into the tables of the documents.

Each table stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; the prose around it is written by hand
and kept.
"""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
TITLES = {
    "float": "float",
    "w8a8_layer": "`w8a8_layer`",
    "w8a8_shift": "`w8a8_shift`",
    "w8a8_channel": "`w8a8_channel`",
    "converter": "TFLite converter",
    "litert_w8a8": "litert-quantizer W8A8",
    "litert_w4a8": "litert-quantizer W4A8",
}
OURS = ("w8a8_layer", "w8a8_shift", "w8a8_channel")


def write(results: dict) -> None:
    """Put the tables into their pages.

    Args:
        results: ``"records"``: model -> method -> record; ``"versions"``: package -> version.

    Raises:
        ValueError: a table's markers are missing.
    """
    write_tables({name: make(results) for name, make in TABLES.items()})


def write_tables(tables: dict[str, str]) -> None:
    """Put tables between their markers, in whichever page has these.

    Args:
        tables: name of the markers -> table.

    Raises:
        ValueError: the markers of a table are on no page, or on several.
    """
    for name, body in tables.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        found = [page for page in pages() if pattern.search(page.read_text(encoding="utf-8"))]
        if len(found) != 1:
            raise ValueError(f"the markers of the table {name!r} are on {len(found)} pages; they must be on one")
        text = pattern.sub(lambda match, body=body: match[1] + body + "\n" + match[2], found[0].read_text("utf-8"))
        found[0].write_text(text, encoding="utf-8")


def pages() -> list[Path]:
    """The documents that tables may be on."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def met(value: bool) -> str:
    """Whether a target is met, as a cell."""
    return "yes" if value else "**no**"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table of cells that are text already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def versions(results: dict) -> str:
    """One line with what the numbers were measured with."""
    return ", ".join(f"{name} {version}" for name, version in results["versions"].items())


def accuracy(results: dict) -> str:
    """Accuracy / agreement / signal to noise, one row per network."""
    rows = []
    for model, records in results["records"].items():
        cells = [_quality(records[method], method) if method in records else "" for method in TITLES]
        rows.append([model, *cells])
    return table(["network", *TITLES.values()], rows)


def cost(results: dict) -> str:
    """Bytes, time and memory of quantizing, latency, one row per network and method."""
    rows = []
    for model, records in results["records"].items():
        for method in TITLES:
            if method in records and method != "float":
                rows.append([model, TITLES[method], *_cost(records[method], records.get("converter"))])
    return table(
        ["network", "method", "kB", "s", "ratio", "CPU ratio", "MiB", "ms", "latency, 1 thread", "2 threads"], rows
    )


def files(results: dict) -> str:
    """Float operators, differences between runtimes, outside judges, one row per network and method."""
    rows = []
    for model, records in results["records"].items():
        for method in TITLES:
            if method in records and method != "float":
                rows.append([model, TITLES[method], *_file(records[method])])
    differences = ["operator: builtin", "operator: XNNPACK", "outputs: builtin", "outputs: XNNPACK"]
    head = ["network", "method", "float operators", *differences, "Analyzer", "validate"]
    return table(head, rows)


def targets(results: dict) -> str:
    """What the files must show, and whether they do."""
    rows = []
    for model, records in results["records"].items():
        rows += [[model, *row] for row in _targets(model, records)]
    return table(["network", "target", "measured", "met"], rows)


def default(results: dict) -> str:
    """Why the default preset is what it is: its distance to scales per channel, and to one scale per layer."""
    rows = [records for records in results["records"].values() if {*OURS} <= {*records}]
    behind = sum(row["w8a8_channel"]["snr_db"] - row["w8a8_shift"]["snr_db"] for row in rows) / len(rows)
    smaller = sum(1 - row["w8a8_shift"]["bytes"] / row["w8a8_channel"]["bytes"] for row in rows) / len(rows)
    lost, kept = (_loss(results["records"]["mobilenetv2"], method) for method in ("w8a8_layer", "w8a8_shift"))
    return (
        f"Scales per channel (`w8a8_channel`) give {behind:.1f} dB more signal-to-noise ratio on average over "
        f"{len(rows)} networks, and\n{smaller:.0%} larger files. One scale per layer changes the top-1 of MobileNetV2 "
        f"by {-lost:+.1f} points without shifts and\nby {-kept:+.1f} with them."
    )


TABLES: dict[str, Callable[[dict], str]] = {
    "versions": versions,
    "default": default,
    "targets": targets,
    "accuracy": accuracy,
    "cost": cost,
    "files": files,
}


def _quality(record: dict, method: str) -> str:
    value = f"{100 * record['accuracy']:.1f}"
    if method == "float":
        return value
    agreement = f"{100 * record['agreement']:.1f}" if "agreement" in record else "-"
    return f"{value} / {agreement} / {record['snr_db']:.1f}"


def _cost(record: dict, baseline: dict | None) -> list[str]:
    used = record["quantizing"]
    ratios = [
        f"{used[key] / baseline['quantizing'][key]:.2f}" if baseline else "" for key in ("seconds", "cpu_seconds")
    ]
    one, two = record["latency"]["1"], record["latency"]["2"]
    return [
        f"{record['bytes'] / 1000:.0f}",
        f"{used['seconds']:.1f}",
        *ratios,
        f"{used['peak_mib']:.0f}",
        f"{one['milliseconds']:.3g}",
        f"{one['ratio']:.3f}",
        f"{two['ratio']:.3f}",
    ]


def _file(record: dict) -> list[str]:
    whole = record["runtime_lsb"]
    alone = {key: steps for key, (steps, _) in record["operator_lsb"].items()}
    builtin, xnnpack = [key for key in whole if "/BUILTIN_" in key], ["litert/AUTO", "tf.lite/AUTO"]
    operators = ", ".join(f"{count} {name}" for name, count in record["float_operators"].items()) or "none"
    opened = f"{record['analyzer_lines']} lines"
    judged = f"{record['validate']['tensors']} tensors"
    differences = [str(max(steps[key] for key in keys)) for steps in (alone, whole) for keys in (builtin, xnnpack)]
    return [operators, *differences, opened, judged]


def _targets(model: str, records: dict) -> Iterable[list[str]]:
    if "float" not in records:
        return
    hard = model.startswith("mobilenetv2")
    allowed = {"w8a8_shift": 1.0 if hard else 0.5, "w8a8_channel": 0.5}
    if hard and "w8a8_layer" in records:
        loss = _loss(records, "w8a8_layer")
        yield ["layer-wise collapses (loses 10 points or more)", f"{loss:.1f}", met(loss >= 10)]
    for method, limit in allowed.items():
        if method in records:
            loss, error = _loss(records, method), 100 * records[method]["standard_error"]
            yield [f"`{method}` at most {limit} below float", f"{loss:.2f} ± {error:.2f}", met(loss <= limit + 1e-9)]
    if "w8a8_shift" in records and "converter" in records:
        yield _against_converter(records)
        yield from _speed_targets(records)


def _against_converter(records: dict) -> list[str]:
    """Row on points of accuracy; signal to noise and agreement stand beside, as noise of the samples may decide."""
    shift, converter = records["w8a8_shift"], records["converter"]
    gain = _loss(records, "converter") - _loss(records, "w8a8_shift")
    error = 100 * math.hypot(shift["standard_error"], converter["standard_error"])
    snr = shift["snr_db"] - converter["snr_db"]
    measured = f"{gain:+.2f} ± {error:.2f} points, {snr:+.1f} dB"
    if "agreement" in shift:
        measured += f", agreement {100 * (shift['agreement'] - converter['agreement']):+.1f}"
    return ["`w8a8_shift` not below the converter", measured, met(gain >= -1e-9)]


def _speed_targets(records: dict) -> Iterable[list[str]]:
    shift, converter = records["w8a8_shift"], records["converter"]
    worst = max(each["ratio"] for each in shift["latency"].values())
    yield ["latency ratio of `w8a8_shift` at most 1.02", f"{worst:.3f}", met(worst <= 1.02)]
    for method in OURS:
        if method in records:
            ours, theirs = records[method]["quantizing"], converter["quantizing"]
            ratio, cpu_ratio = (ours[key] / theirs[key] for key in ("seconds", "cpu_seconds"))
            measured = f"{ratio:.2f} (CPU time {cpu_ratio:.2f})"
            yield [f"quantizing `{method}` takes at most 2 x the converter's time", measured, met(ratio <= 2)]
    ours, theirs = (max(steps for steps, _ in each["operator_lsb"].values()) for each in (shift, converter))
    measured = f"{ours} (converter {theirs})"
    yield ["no operator differs between runtimes by more than 1 LSB", measured, met(ours <= max(1, theirs))]


def _loss(records: dict, method: str) -> float:
    return 100 * (records["float"]["accuracy"] - records[method]["accuracy"])
