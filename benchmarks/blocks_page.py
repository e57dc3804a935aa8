"""Turn the records of ``benchmarks.blocks`` into tables.

Each stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; all else on the page is left alone.
"""

from typing import Any

import numpy as np

from benchmarks.tables import met, table, write_tables


def write(results: dict[str, Any]) -> None:
    """Write all tables of the granularity study.

    Args:
        results: network -> part -> name -> record.
    """
    tables = {
        "blocks_targets": targets(results),
        "blocks_grid": cells(results, "grid"),
        "blocks_searched": cells(results, "searched"),
        "blocks_kinds": kinds(results),
        "blocks_layouts": layouts(results),
    }
    write_tables(tables)


def cells(results: dict[str, Any], part: str) -> str:
    """One row per network and cell: scales, signal to noise, top-1, size."""
    head = [
        "network",
        "scales by",
        "reordered",
        "scales",
        "weights, dB",
        "layers, dB",
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
                    f"{record['layer_output_snr_db']:.2f}",
                    f"{record['snr_db']:.2f}",
                    f"{100 * record['accuracy']:.1f} ± {100 * record['standard_error']:.1f}",
                    f"{100 * record['agreement']:.1f}",
                    f"{record['bytes'] / 1000:.0f}",
                    f"{record['seconds']:.0f}",
                ]
            )
    return table(head, rows)


_RATIOS = ("weight_snr_db", "layer_output_snr_db", "snr_db")
#: Part -> what its scales were searched by, and what it compares.
_KINDS = {"kinds": "outputs", "kinds_by_weights": "weights"}


def kinds(results: dict[str, Any]) -> str:
    """Signal to noise of the kinds of block scale, one row per network, search and kind."""
    rows = []
    for network, parts in results.items():
        for part, searched in _KINDS.items():
            found = parts.get(part, {})
            for kind, record in found.items():
                shown = [f"{record[key]:.2f} ({record[key] - found['float'][key]:+.2f})" for key in _RATIOS]
                rows.append([network, searched, f"`{kind}`", *shown, f"{100 * record['accuracy']:.1f}"])
    return table(["network", "scales by", "kind", "weights, dB", "layers, dB", "outputs, dB", "top-1"], rows)


def layouts(results: dict[str, Any]) -> str:
    """Bytes and agreement of the layouts, one row per network and layout."""
    rows = []
    for network, parts in results.items():
        found = parts.get("layouts", {}).get("preset", {})
        for name, record in found.items():
            if name == "converter":
                continue
            floats = str(sum(record["float_operators"].values()) or "")
            size = [f"{record['bytes'] / 1000:.0f}", f"{record['bytes'] / found['converter']['bytes']:.2f}"]
            same = (f"{value:.0e}" if value else "0" for value in record["same_resolver"].values())
            across = max(record["from_reference"].values())
            rows.append([network, name, *size, floats, *same, f"{across:.0e}"])
    head = ["network", "file", "kB", "of the converter's int8", "float operators"]
    return table([*head, "AUTO", "BUILTIN", "BUILTIN_REF", "largest from BUILTIN_REF"], rows)


def targets(results: dict[str, Any]) -> str:
    """What the study was to show, and whether it does."""
    rows, integers = [], []
    for network, parts in results.items():
        for part in ("grid", "searched"):
            rows += [[network, *row] for row in _beats_channels(parts.get(part, {}), part)]
        rows += [[network, *row] for row in _cost(parts.get("searched", {}).get("W4 4 input blocks integer reordered"))]
        costs = [_integers_cost(parts.get(part, {}), part) for part in _KINDS]
        rows += [[network, *_cheap_integers(*found)] for found in costs if found]
        integers += [found[1] for found in costs if found]
        rows += [[network, *row] for row in _small_and_equal(parts.get("layouts", {}).get("preset", {}))]
    if len(integers) > 1:
        rows.append(["mean", *_cheap_integers(f"mean of the {len(integers)} above", np.mean(integers, axis=0))])
    return table(["network", "target", "measured", "met"], rows)


def _cost(record: dict[str, Any] | None) -> list[list[str]]:
    """Row on what reordering and search by outputs cost; judged by processor time, as the machine may be busy."""
    if record is None:
        return []
    measured = f"{record['seconds']:.0f} s, processor time {record['cpu_seconds']:.0f} s, {record['peak_mib']:.0f} MiB"
    cheap = record["cpu_seconds"] <= 300 and record["peak_mib"] <= 4096
    return [["reordering and search in 5 minutes (of processor time) and 4 GiB", measured, met(cheap)]]


def _integers_cost(found: dict[str, Any], part: str) -> tuple[str, list[float]] | None:
    """How the scales were searched, and by how many dB integer scales are worse than float ones in ``_RATIOS``."""
    if not {"float", "integer"} <= set(found):
        return None
    return f"scales by {_KINDS[part]}", [found["float"][key] - found["integer"][key] for key in _RATIOS]


def _cheap_integers(what: str, costs: list[float]) -> list[str]:
    measured = "{2:+.2f} dB (weights {0:+.2f} dB, layers {1:+.2f} dB)".format(*costs)
    target = f"`integer` costs at most 0.2 dB of the outputs against `float`, {what}"
    return [target, measured, met(costs[-1] <= 0.2)]


def _small_and_equal(found: dict[str, Any]) -> list[list[str]]:
    """Rows on the layouts."""
    rows = []
    for name, record in found.items():
        if "inline" in name or "composite" in name:
            share = record["bytes"] / found["converter"]["bytes"]
            target = f"{name}: at most 0.6 of the bytes of the converter's int8 file"
            rows.append([target, f"{share:.3f}", met(share <= 0.6)])
        if name != "converter":
            limit = 1e-5 if record["float_operators"] else 0.0
            other = [f"{key} {value:.0e}" for key, value in record["same_resolver"].items() if value > limit]
            target = f"{name}: same answers as the first layout of these weights, resolver by resolver"
            rows.append([target, ", ".join(other) or "equal", met(not other)])
    return rows


def _beats_channels(found: dict[str, Any], part: str) -> list[list[str]]:
    scales = {"grid": "weights", "searched": "outputs"}[part]
    channel, rows = found.get("W4 channel"), []
    for count in (2, 4, 8, 16):
        plain, moved = (found.get(f"W4 {count} input blocks integer{end}") for end in ("", " reordered"))
        name = f"{count} input blocks, scales by {scales}"
        if moved and channel:
            rows.append([f"{name}: reordered at least as good as channels", *_compared(moved, channel)])
        if moved and plain:
            rows.append([f"{name}: reordering helps", *_compared(moved, plain)])
    return rows


def _compared(ours: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Differences, and whether ours has no more scales and is not worse; top-1 within two standard errors."""
    gain = {key: ours[key] - other[key] for key in ("snr_db", "accuracy", "scales", "weight_snr_db")}
    error = (ours["standard_error"] ** 2 + other["standard_error"] ** 2) ** 0.5
    as_good = gain["snr_db"] >= 0 and gain["accuracy"] >= -2 * error and gain["scales"] <= 0
    measured = (
        f"{gain['scales']:+d} scales, weights {gain['weight_snr_db']:+.2f} dB, outputs {gain['snr_db']:+.2f} dB, "
        f"top-1 {100 * gain['accuracy']:+.1f} ± {100 * error:.1f}"
    )
    return [measured, met(as_good)]
