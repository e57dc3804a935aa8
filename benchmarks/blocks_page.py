"""Turn the records of ``benchmarks.blocks`` into the tables of ``docs/benchmarks.md``.

Each stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; all else on the page is left alone.
"""

import re
from pathlib import Path
from typing import Any

from benchmarks.tables import _met, _table


def write(page: Path, results: dict[str, Any]) -> None:
    """Write all tables of the granularity study.

    Args:
        page: the Markdown file.
        results: network -> part -> name -> record.
    """
    tables = {
        "blocks_targets": targets(results),
        "blocks_grid": cells(results, "grid"),
        "blocks_searched": cells(results, "searched"),
        "blocks_kinds": kinds(results),
        "blocks_layouts": layouts(results),
    }
    write_tables(page, tables)


def write_tables(page: Path, tables: dict[str, str]) -> None:
    """Put tables into the page.

    Args:
        page: the Markdown file.
        tables: name of the markers -> table.

    Raises:
        ValueError: a table's markers are missing.
    """
    text = page.read_text(encoding="utf-8")
    for name, body in tables.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page} lacks the markers of the table {name!r}")
        text = pattern.sub(lambda match, body=body: match[1] + body + "\n" + match[2], text)
    page.write_text(text, encoding="utf-8")


def cells(results: dict[str, Any], part: str) -> str:
    """One row per network and cell: scales, signal to noise, top-1, size."""
    head = [
        "network",
        "scales by",
        "reordered",
        "scales",
        "weights, dB",
        "outputs, dB",
        "top-1",
        "agreement",
        "kB",
        "s",
    ]
    rows = []
    for network, parts in results.items():
        for record in parts.get(part, {}).values():
            rows.append(
                [
                    network,
                    record["granularity"],
                    "yes" if record["reorder"] else "",
                    str(record["scales"]),
                    f"{record['weight_snr_db']:.2f}",
                    f"{record['snr_db']:.2f}",
                    f"{100 * record['accuracy']:.1f} ± {100 * record['standard_error']:.1f}",
                    f"{100 * record['agreement']:.1f}",
                    f"{record['bytes'] / 1000:.0f}",
                    f"{record['seconds']:.0f}",
                ]
            )
    return _table(head, rows)


def kinds(results: dict[str, Any]) -> str:
    """Signal to noise of the kinds of block scale, one row per network."""
    rows = []
    for network, parts in results.items():
        found = parts.get("kinds", {})
        if found:
            best = found["float"]["snr_db"]
            cells = [f"{each['snr_db']:.2f} ({each['snr_db'] - best:+.2f})" for each in found.values()]
            rows.append([network, *cells, *(f"{100 * each['accuracy']:.1f}" for each in found.values())])
    head = ["network", *(f"`{kind}`, dB" for kind in ("float", "integer", "shift"))]
    return _table([*head, *(f"`{kind}`, top-1" for kind in ("float", "integer", "shift"))], rows)


def layouts(results: dict[str, Any]) -> str:
    """Bytes and agreement of the layouts, one row per network and layout."""
    rows = []
    for network, parts in results.items():
        found = parts.get("layouts", {}).get("preset", {})
        for name, record in found.items():
            differences = [f"{record['resolvers'][key]:.1e}" for key in record["resolvers"]]
            share = f"{record['bytes'] / found['int8']['bytes']:.2f}"
            floats = sum(record["float_operators"].values())
            rows.append([network, f"`{name}`", f"{record['bytes'] / 1000:.0f}", share, str(floats), *differences])
    head = ["network", "layout", "kB", "of `int8`", "float operators", "AUTO", "BUILTIN", "BUILTIN_REF"]
    return _table(head, rows)


def targets(results: dict[str, Any]) -> str:
    """What the study was to show, and whether it does."""
    rows = []
    for network, parts in results.items():
        for part in ("grid", "searched"):
            rows += [[network, *row] for row in _beats_channels(parts.get(part, {}), part)]
        found = parts.get("kinds", {})
        if {"float", "integer"} <= set(found):
            cost = found["float"]["snr_db"] - found["integer"]["snr_db"]
            rows.append(
                [network, "`integer` blocks cost at most 0.2 dB against `float`", f"{cost:+.2f} dB", _met(cost <= 0.2)]
            )
        for layout, record in parts.get("layouts", {}).get("preset", {}).items():
            if layout in ("inline", "composite"):
                share = record["bytes"] / parts["layouts"]["preset"]["int8"]["bytes"]
                rows.append(
                    [network, f"`{layout}` at most 0.6 of the bytes of `int8`", f"{share:.2f}", _met(share <= 0.6)]
                )
    return _table(["network", "target", "measured", "met"], rows)


def _beats_channels(found: dict[str, Any], part: str) -> list[list[str]]:
    reordered, plain, channel = (
        found.get(name) for name in ("W4 4 input blocks integer reordered", "W4 4 input blocks integer", "W4 channel")
    )
    if not (reordered and plain and channel):
        return []
    scales = {"grid": "weights", "searched": "outputs"}[part]
    gain = {key: reordered[key] - channel[key] for key in ("snr_db", "accuracy", "scales", "weight_snr_db")}
    error = (reordered["standard_error"] ** 2 + channel["standard_error"] ** 2) ** 0.5
    as_good = gain["snr_db"] >= 0 and gain["accuracy"] >= -error and gain["scales"] <= 0
    measured = (
        f"{gain['scales']:+d} scales, weights {gain['weight_snr_db']:+.2f} dB, outputs {gain['snr_db']:+.2f} dB, "
        f"top-1 {100 * gain['accuracy']:+.1f} ± {100 * error:.1f}"
    )
    helps = {key: reordered[key] - plain[key] for key in ("snr_db", "weight_snr_db")}
    moved = f"weights {helps['weight_snr_db']:+.2f} dB, outputs {helps['snr_db']:+.2f} dB"
    return [
        [f"4 input blocks reordered at least as good as channels (scales by {scales})", measured, _met(as_good)],
        [f"reordering helps 4 input blocks (scales by {scales})", moved, _met(min(helps.values()) >= 0)],
    ]
