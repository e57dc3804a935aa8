"""Turn records into the tables of ``docs/benchmarks.md``.

Each table stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; the prose around it is written by hand
and kept.
"""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

TITLES = {
    "float": "float",
    "w8a8_layer": "`w8a8_layer`",
    "w8a8_shift": "`w8a8_shift`",
    "w8a8_channel": "`w8a8_channel`",
    "converter": "TFLite converter",
    "ai_edge_w8a8": "ai-edge W8A8",
    "ai_edge_w4a8": "ai-edge W4A8",
}
OURS = ("w8a8_layer", "w8a8_shift", "w8a8_channel")


def write(page: Path, results: dict) -> None:
    """Put the tables into the page.

    Args:
        page: the Markdown file.
        results: ``"records"``: model -> method -> record; ``"versions"``: package -> version.

    Raises:
        ValueError: a table's markers are missing.
    """
    text = page.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page} lacks the markers of the table {name!r}")
        body = table(results)
        text = pattern.sub(lambda match, body=body: match[1] + body + "\n" + match[2], text)
    page.write_text(text, encoding="utf-8")


def versions(results: dict) -> str:
    """One line with what the numbers were measured with."""
    return ", ".join(f"{name} {version}" for name, version in results["versions"].items())


def accuracy(results: dict) -> str:
    """Accuracy / agreement / signal to noise, one row per network."""
    rows = []
    for model, records in results["records"].items():
        cells = [_quality(records[method], method) if method in records else "" for method in TITLES]
        rows.append([model, *cells])
    return _table(["network", *TITLES.values()], rows)


def cost(results: dict) -> str:
    """Bytes, time and memory of quantizing, latency, one row per network and method."""
    rows = []
    for model, records in results["records"].items():
        for method in TITLES:
            if method in records and method != "float":
                rows.append([model, TITLES[method], *_cost(records[method], records.get("converter"))])
    return _table(["network", "method", "kB", "s", "ratio", "MiB", "ms", "latency, 1 thread", "2 threads"], rows)


def files(results: dict) -> str:
    """Float operators, differences between runtimes, outside judges, one row per network and method."""
    rows = []
    for model, records in results["records"].items():
        for method in TITLES:
            if method in records and method != "float":
                rows.append([model, TITLES[method], *_file(records[method])])
    head = [
        "network",
        "method",
        "float operators",
        "LSB: builtin",
        "XNNPACK",
        "tf.lite XNNPACK",
        "Analyzer",
        "validate",
    ]
    return _table(head, rows)


def targets(results: dict) -> str:
    """What the files must show, and whether they do."""
    rows = []
    for model, records in results["records"].items():
        rows += [[model, *row] for row in _targets(model, records)]
    return _table(["network", "target", "measured", "met"], rows)


TABLES: dict[str, Callable[[dict], str]] = {
    "versions": versions,
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
    ratio = f"{used['seconds'] / baseline['quantizing']['seconds']:.2f}" if baseline else ""
    one, two = record["latency"]["1"], record["latency"]["2"]
    return [
        f"{record['bytes'] / 1000:.0f}",
        f"{used['seconds']:.1f}",
        ratio,
        f"{used['peak_mib']:.0f}",
        f"{one['milliseconds']:.3g}",
        f"{one['ratio']:.3f}",
        f"{two['ratio']:.3f}",
    ]


def _file(record: dict) -> list[str]:
    lsb = record["runtime_lsb"]
    builtin = max(lsb[key] for key in lsb if key.endswith(("WITHOUT_DEFAULT_DELEGATES", "REF")))
    operators = ", ".join(f"{count} {name}" for name, count in record["float_operators"].items()) or "none"
    opened = f"{record['analyzer_lines']} lines"
    judged = f"{record['validate']['tensors']} tensors"
    return [operators, str(builtin), str(lsb["litert/AUTO"]), str(lsb["tf.lite/AUTO"]), opened, judged]


def _targets(model: str, records: dict) -> Iterable[list[str]]:
    if "float" not in records:
        return
    hard = model.startswith("mobilenetv2")
    allowed = {"w8a8_shift": 1.0 if hard else 0.5, "w8a8_channel": 0.5}
    if hard and "w8a8_layer" in records:
        loss = _loss(records, "w8a8_layer")
        yield ["layer-wise collapses (loses 10 points or more)", f"{loss:.1f}", _met(loss >= 10)]
    for method, limit in allowed.items():
        if method in records:
            loss, error = _loss(records, method), _standard_error(records[method], records["float"])
            yield [f"`{method}` at most {limit} below float", f"{loss:.2f}{error}", _met(loss <= limit + 1e-9)]
    if "w8a8_shift" in records and "converter" in records:
        gain = _loss(records, "converter") - _loss(records, "w8a8_shift")
        snr = records["w8a8_shift"]["snr_db"] - records["converter"]["snr_db"]
        yield ["`w8a8_shift` not below the converter", f"{gain:+.2f} points, {snr:+.1f} dB", _met(gain >= -1e-9)]
        yield from _speed_targets(records)


def _speed_targets(records: dict) -> Iterable[list[str]]:
    shift, converter = records["w8a8_shift"], records["converter"]
    worst = max(each["ratio"] for each in shift["latency"].values())
    yield ["latency ratio of `w8a8_shift` at most 1.02", f"{worst:.3f}", _met(worst <= 1.02)]
    for method in OURS:
        if method in records:
            ratio = records[method]["quantizing"]["seconds"] / converter["quantizing"]["seconds"]
            yield [f"quantizing `{method}` at most 2 x the converter", f"{ratio:.2f}", _met(ratio <= 2)]
    lsb = {name: max(records[name]["runtime_lsb"].values()) for name in ("w8a8_shift", "converter")}
    allowed = max(1, lsb["converter"])
    measured = f"{lsb['w8a8_shift']} (converter {lsb['converter']})"
    yield ["runtimes differ no more than for the converter's file", measured, _met(lsb["w8a8_shift"] <= allowed)]


def _loss(records: dict, method: str) -> float:
    return 100 * (records["float"]["accuracy"] - records[method]["accuracy"])


def _standard_error(record: dict, reference: dict) -> str:
    if "won" not in record:
        return ""
    return f" ± {100 * math.sqrt(record['won'] + record['lost']) / reference['evaluated']:.2f}"


def _met(value: bool) -> str:
    return "yes" if value else "**no**"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
