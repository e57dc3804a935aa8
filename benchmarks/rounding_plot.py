"""Pictures of ``benchmarks.rounding``: quality over the width of the weights, and quality and cost over the samples."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell
from tfptq.base.files import write_atomically

Found = Sequence[tuple[Cell, dict[str, Any]]]


def write_bits_plot(path: Path, found: Found) -> None:
    """Draw signal to noise and accuracy over the width of the weights, one line for each way of rounding.

    Args:
        path: the PNG file to write; nothing is written without records.
        found: cells of one network, and their records.
    """
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for cell, record in found:
        lines.setdefault(cell.rounding, []).append((cell.config.weight_bits, record))
    if not lines:
        return
    axes = _panels(2)
    for name, points in lines.items():
        bits = [width for width, _ in points]
        axes[0].plot(bits, [record["snr_db"] for _, record in points], "o-", label=name)
        accuracy, error = ([record[key] for _, record in points] for key in ("accuracy", "standard_error"))
        axes[1].errorbar(bits, accuracy, error, fmt="o-", capsize=3, label=name)
    axes[1].axhline(found[0][1]["float_accuracy"], color="black", linestyle="--", label="float")
    for panel, label in zip(axes, ("signal to noise of the outputs, dB", "accuracy"), strict=True):
        panel.set(xlabel="bits", ylabel=label, xticks=sorted({cell.config.weight_bits for cell, _ in found}))
        panel.legend()
    _save(path, axes)


def write_samples_plot(path: Path, found: Found) -> None:
    """Draw signal to noise, accuracy, time and memory over the number of calibration samples.

    Args:
        path: the PNG file to write; nothing is written without records.
        found: cells of one network that differ in their samples alone, and their records.
    """
    points = sorted((record for _, record in found), key=lambda record: record["samples"])
    if not points:
        return
    axes = _panels(4)
    samples = [record["samples"] for record in points]
    accuracy, error = ([record[key] for record in points] for key in ("accuracy", "standard_error"))
    axes[0].plot(samples, [record["snr_db"] for record in points], "o-")
    axes[1].errorbar(samples, accuracy, error, fmt="o-", capsize=3)
    axes[1].axhline(points[0]["float_accuracy"], color="black", linestyle="--", label="float")
    for step in ("fit", "calibrate"):
        axes[2].plot(samples, [record["steps"][step] for record in points], "o-", label=step)
    axes[3].plot(samples, [record["peak_mib"] for record in points], "o-", label="peak")
    axes[3].plot(samples, [record["start_mib"] for record in points], "o-", label="network and samples alone")
    labels = ("signal to noise of the outputs, dB", "accuracy", "seconds", "memory, MiB")
    for panel, label in zip(axes, labels, strict=True):
        panel.set(xscale="log", xlabel="calibration samples", ylabel=label)
        panel.set_xticks(samples, [str(count) for count in samples])
        panel.minorticks_off()
    for panel in axes[1:]:
        panel.legend()
    for panel in axes[2:]:
        panel.set_ylim(bottom=0)
    _save(path, axes)


def _panels(count: int) -> list:
    """Axes side by side, two in a row."""
    from matplotlib.figure import Figure

    rows = count // 2
    axes = list(Figure(figsize=(12.8, 4.8 * rows), layout="constrained").subplots(rows, 2).flat)
    for panel in axes:
        panel.grid(alpha=0.3)
    return axes


def _save(path: Path, axes: list) -> None:
    content = io.BytesIO()
    axes[0].figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())
