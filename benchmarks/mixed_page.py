"""Turn the records of ``benchmarks.mixed`` into tables, and pictures of the decisions."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell
from benchmarks.rounding_page import below_float
from benchmarks.tables import met, table, write_tables
from tfptq.base.files import write_atomically

Found = tuple[Cell, dict[str, Any]]


@dataclass(frozen=True)
class Study:
    """What was measured on a network.

    Attributes:
        network: its name.
        uniform: the same bits everywhere.
        parts: part -> cells and records; the first of ``"average"`` has the default settings.
    """

    network: str
    uniform: Found
    parts: dict[str, list[Found]]

    @property
    def cells(self) -> list[Found]:
        """All cells of mixed precision."""
        return [pair for pairs in self.parts.values() for pair in pairs]


def write(folder: Path, studies: Sequence[Study]) -> None:
    """Write all tables and pictures.

    Args:
        folder: where the pictures go, ``mixed_NETWORK.png``.
        studies: one for each network.
    """
    tables = {"mixed_targets": targets(studies), "mixed_cells": cells(studies), "mixed_layers": layers(studies)}
    write_tables(tables)
    for study in studies:
        for _, record in study.parts["average"][:1]:
            write_plot(folder / f"mixed_{study.network}.png", record["layers"])


def targets(studies: Sequence[Study]) -> str:
    """Whether the default settings beat uniform bits at no more bytes."""
    rows = []
    for study in studies:
        for cell, record in study.parts["average"][:1]:
            uniform = study.uniform[1]
            measured = f"{_gain(record, uniform)}, {record['packed_bytes'] - uniform['packed_bytes']:+d} bytes"
            better = record["accuracy"] > uniform["accuracy"] and record["snr_db"] > uniform["snr_db"]
            fits = record["packed_bytes"] <= uniform["packed_bytes"]
            rows.append(
                [study.network, f"{cell.weights}: beats 4 bits at no more bytes", measured, met(better and fits)]
            )
    return table(["network", "target", "measured", "met"], rows)


def cells(studies: Sequence[Study]) -> str:
    """Quality and size, one row per network and cell."""
    rows = []
    for study in studies:
        for cell, record in (study.uniform, *study.cells):
            judged = [f"{100 * record['accuracy']:.1f}", below_float(record), f"{100 * record['agreement']:.1f}"]
            ratios = [f"{record['layer_output_snr_db']:.2f}", f"{record['snr_db']:.2f}"]
            gain = "" if record is study.uniform[1] else _gain(record, study.uniform[1])
            rows.append([study.network, cell.weights, *judged, *ratios, str(record["packed_bytes"]), gain])
    judged = ["accuracy", "below float", "agreement", "layers, dB", "outputs, dB", "packed bytes"]
    return table(["network", "weights", *judged, "against 4 bits"], rows)


def layers(studies: Sequence[Study]) -> str:
    """Coding length, bits and bytes of each layer with the default settings."""
    rows = []
    for study in studies:
        for _, record in study.parts["average"][:1]:
            for row in record["layers"]:
                bits = f"{row['bits']}{' (pinned)' if row['pinned'] else ''}"
                rows.append(
                    [study.network, row["layer"], str(row["weights"]), f"{row['rate']:.2f}", bits, str(row["bytes"])]
                )
    return table(["network", "layer", "weights", "coding length, bits per weight", "bits", "bytes"], rows)


def write_plot(path: Path, decisions: Sequence[dict[str, Any]]) -> None:
    """Draw coding length, bits and bytes of each layer.

    Args:
        path: the PNG file to write.
        decisions: one dictionary for each layer with the fields of ``LayerBits`` and ``"bytes"``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 9.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    labels = {"rate": "coding length, bits per weight", "bits": "bits", "bytes": "bytes of the packed codes"}
    places = range(len(decisions))
    colours = ["tab:gray" if row["pinned"] else "tab:blue" for row in decisions]
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        axes.bar(places, [row[name] for row in decisions], color=colours)
        axes.set(ylabel=label)
        axes.grid(alpha=0.3, axis="y")
    panels[0].set(title="grey: pinned")
    panels[2].set(yscale="log")
    panels[2].set_xticks(places, [row["layer"] for row in decisions], rotation=90, fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())


def _gain(record: dict[str, Any], uniform: dict[str, Any]) -> str:
    """Differences of accuracy and signal to noise; the error is that of two independent files."""
    error = (record["standard_error"] ** 2 + uniform["standard_error"] ** 2) ** 0.5
    points = f"{100 * (record['accuracy'] - uniform['accuracy']):+.2f} ± {100 * error:.2f}"
    return f"{points} points, {record['snr_db'] - uniform['snr_db']:+.2f} dB"
