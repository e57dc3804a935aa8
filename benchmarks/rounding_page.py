"""Turn the records of ``benchmarks.rounding`` into tables."""

from collections.abc import Iterable
from typing import Any

from benchmarks.cells import Cell, Records
from benchmarks.rounding_cells import MLPERF_TINY, NETWORKS, PARTS, PRESETS, cells_of, mixed_blocks, preset
from benchmarks.tables import met, table, write_tables

#: Most points below the float network at 4, 3 and 2 bits.
RESNET20_LIMITS = {4: 0.3, 3: 1.0, 2: 5.0}
#: Cell, most points below the float network.
MOBILENETV2_LIMITS = (
    (preset("mobilenetv2", "w4a8_channel", samples=1024), 1.5),
    (preset("mobilenetv2", "w4a8_block", samples=1024), 1.0),
    (preset("mobilenetv2", "w4a8_fine_block", samples=1024), 1.0),
    (preset("mobilenetv2", "w4a8_channel", 3, samples=1024), 4.0),
    (preset("mobilenetv2", "w4a8_fine_block", 3, samples=1024), 4.0),
    (preset("mobilenetv2", "w4a8_mixed", 3, samples=1024), 4.0),
    (mixed_blocks("mobilenetv2", 3, samples=1024), 4.0),
)
MOST_SECONDS, MOST_MIB = 600, 4096


def write(records: Records) -> None:
    """Write all tables of the study.

    Args:
        records: what was measured.
    """
    tables = {"rounding_targets": targets(records), "rounding_samples": samples(records)}
    for part in PARTS:
        if part != "samples":
            tables[f"rounding_{part}"] = quality(records, part)
    write_tables(tables)


def quality(records: Records, part: str) -> str:
    """Quality and cost, one row per network and cell."""
    rows = [
        [
            cell.network,
            cell.weights,
            cell.rounding,
            str(cell.samples),
            f"{100 * record['accuracy']:.1f}",
            below_float(record),
            f"{100 * record['agreement']:.1f}" if "agreement" in record else "",
            f"{record['layer_output_snr_db']:.2f}",
            f"{record['snr_db']:.2f}",
            f"{record['packed_bytes'] / 1000:.0f}",
            *_cost(record),
        ]
        for cell, record in _found(records, part)
    ]
    judged = ["accuracy", "below float", "agreement", "layers, dB", "outputs, dB", "weights, kB"]
    return table(["network", "weights", "rounding", "samples", *judged, "s", "CPU s", "MiB"], rows)


def samples(records: Records) -> str:
    """What more samples cost and give, one row per network and number of samples."""
    rows = []
    found = _found(records, "samples")
    for cell, record in sorted(found, key=lambda pair: (NETWORKS.index(pair[0].network), pair[0].samples)):
        judged = [f"{100 * record['accuracy']:.1f}", below_float(record), f"{record['snr_db']:.2f}"]
        steps = [f"{record['steps'][step]:.1f}" for step in ("fit", "calibrate")]
        memory = [f"{record[key]:.0f}" for key in ("start_mib", "peak_mib")]
        rows.append([cell.network, str(record["samples"]), *judged, *steps, *_cost(record)[:2], *memory])
    head = ["network", "samples", "accuracy", "below float", "outputs, dB", "fit, s", "calibrate, s", "all, s", "CPU s"]
    return table([*head, "MiB before", "MiB at most"], rows)


def targets(records: Records) -> str:
    """What the study was to show, and whether it does."""
    rows = []
    for network in MLPERF_TINY:
        rows += _at_most(records, ((preset(network, name), 1.0) for name in PRESETS))
    for bits, limit in RESNET20_LIMITS.items():
        rows += _at_most(records, [(preset("resnet20", "w4a8_channel", bits), limit)])
    rows += _at_most(records, [(preset("resnet20", "w4a8_fine_block"), RESNET20_LIMITS[4])])
    for cell, limit in MOBILENETV2_LIMITS:
        rows += _at_most(records, [(cell, limit)])
        rows += [_in_time(cell, record) for cell, record in records.found([cell])]
    return table(["network", "target", "measured", "met"], rows)


def below_float(record: dict[str, Any]) -> str:
    """Points of accuracy below the float network, with one standard error."""
    return f"{_loss(record):.2f} ± {100 * record['standard_error']:.2f}"


def _found(records: Records, part: str) -> list[tuple[Cell, dict[str, Any]]]:
    return records.found(cell for network in NETWORKS for cell in cells_of(part, network))


def _loss(record: dict[str, Any]) -> float:
    return 100 * (record["float_accuracy"] - record["accuracy"])


def _cost(record: dict[str, Any]) -> list[str]:
    return [f"{record[key]:.0f}" for key in ("seconds", "cpu_seconds", "peak_mib")]


def _at_most(records: Records, limits: Iterable[tuple[Cell, float]]) -> list[list[str]]:
    """Rows on cells and the points they may lose."""
    rows = []
    for cell, limit in limits:
        for _, record in records.found([cell]):
            target = f"{cell.weights}, {cell.rounding}: at most {limit} below float"
            rows.append([cell.network, target, below_float(record), met(_loss(record) <= limit + 1e-9)])
    return rows


def _in_time(cell: Cell, record: dict[str, Any]) -> list[str]:
    """Row on what a cell cost."""
    target = f"{cell.weights} on {cell.samples} samples in {MOST_SECONDS} s and {MOST_MIB} MiB"
    measured = "{} s, processor time {} s, {} MiB".format(*_cost(record))
    in_limits = record["seconds"] <= MOST_SECONDS and record["peak_mib"] <= MOST_MIB
    return [cell.network, target, measured, met(in_limits)]
