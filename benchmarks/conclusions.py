"""Plots of the page of conclusions, ``docs/benchmarks.md``: ``python -m benchmarks.conclusions``.

Titles say what a plot shows, in numbers that are counted when it is drawn from the records in ``benchmarks/results``.
"""

import json
import sys
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import frontier
from benchmarks.cells import HERE
from benchmarks.tables import PICTURES, TITLES
from docs.draw.style import BLUE, GREEN, GREY, ORANGE, panels, write

NETWORKS = {
    "ic01": "ic01 (ResNet-8)",
    "vww01": "vww01 (MobileNetV1)",
    "kws01": "kws01 (DS-CNN)",
    "ad01": "ad01 (dense)",
    "resnet20": "ResNet-20",
    "resnet56": "ResNet-56",
    "mobilenetv2": "MobileNetV2",
}
ROUNDINGS = {"nearest": GREY, "coordinate": GREEN, "adaround": ORANGE, "attention": BLUE}
Records = dict[str, Any]


def read(name: str) -> Records:
    """What a benchmark found."""
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))


def eight_bits() -> Figure:
    """Signal to noise at 8 bits, network by network."""
    records = read("w8a8")["records"]
    colours = {"w8a8_layer": GREY, "converter": ORANGE, "w8a8_shift": BLUE, "w8a8_channel": GREEN}
    figure, (axes,) = panels(10.5, 4.2)
    for place, (method, colour) in enumerate(colours.items()):
        ratios = [records[network][method]["snr_db"] for network in NETWORKS]
        at = np.arange(len(ratios)) + 0.2 * (place - 1.5)
        axes.bar(at, ratios, width=0.19, color=colour, label=TITLES[method].strip("`"))
    gains = [records[network]["w8a8_shift"]["snr_db"] - records[network]["converter"]["snr_db"] for network in NETWORKS]
    axes.set(xticks=range(len(NETWORKS)), xticklabels=_broken(NETWORKS.values()), ylabel="outputs, dB", ylim=(0, 49))
    axes.set_title(f"8 bits: the default is {np.mean(gains):.1f} dB nearer to float than the converter, in the mean")
    axes.legend(ncols=4, loc="upper left")
    return figure


def few_bits() -> Figure:
    """Bytes and latency of 4 bits per channel on CPUs, beside the converter's int8 file."""
    records, figure, (left, right) = read("targets"), *panels(10.5, 3.6, 2, sharey=True)
    sizes, latencies = [], []
    for network in NETWORKS:
        found = [record for key, record in records.items() if key.startswith(f"{network} w4a8_channel cpu ")]
        sizes.append(np.mean([record["bytes"] / record["peer_bytes"] for record in found]))
        latencies.append(np.mean([record["latency"]["1"] for record in found if "latency" in record]))
    fast = [latency < 1.1 for latency in latencies]
    colours = [BLUE if each else ORANGE for each in fast]
    for panel, values in ((left, sizes), (right, latencies)):
        for row, value in enumerate(values):
            panel.barh(row, value, color=colours[row])
            panel.text(value, row, f" {value:.2f}", va="center", fontsize=9)
        panel.axvline(1.0, color=GREY, linestyle="--", linewidth=1)
        panel.set(yticks=range(len(NETWORKS)), yticklabels=NETWORKS.values(), ylim=(len(NETWORKS) - 0.4, -0.6))
        panel.set(xlim=(0, 1.6))
    left.set_xlabel("bytes, of the converter's int8 file")
    right.set_xlabel("latency on one thread, of the same")
    most = max(size for size, each in zip(sizes, fast, strict=True) if each)
    left.set_title(f"4 bits per channel: {most:.2f} of the bytes ...")
    right.set_title(f"... at the speed of int8, on {sum(fast)} of {len(fast)} networks")
    return figure


def rounding() -> Figure:
    """Top-1 over the width of the weights, for each way of rounding."""
    records, figure, axes = read("rounding"), *panels(10.5, 4.2, 2)
    for panel, network, widths in zip(axes, ("resnet20", "mobilenetv2"), ((2, 3, 4), (3, 4)), strict=True):
        cells = {method: [records[network][_cell(bits, method)] for bits in widths] for method in ROUNDINGS}
        for method, colour in ROUNDINGS.items():
            accuracies = [100 * record["accuracy"] for record in cells[method]]
            panel.plot(widths, accuracies, "o-", color=colour, label=method)
        gain = 100 * (cells["attention"][0]["accuracy"] - cells["nearest"][0]["accuracy"])
        float_accuracy = 100 * cells["nearest"][0]["float_accuracy"]
        panel.axhline(float_accuracy, color=GREY, linestyle="--", linewidth=1)
        panel.text(widths[-1], float_accuracy, "float", color=GREY, va="bottom", ha="right", fontsize=9)
        panel.set(xticks=widths, xlabel="bits of the weights", ylabel="top-1, %")
        panel.set_title(f"{NETWORKS[network]}: learned rounding, {gain:+.0f} points at {widths[0]} bits")
    axes[0].legend(loc="lower right")
    return figure


def blocks() -> Figure:
    """Blocks and channels at the same number of scales."""
    records, figure, (axes,) = read("blocks"), *panels(7.5, 4.0)
    ways = {
        "W4 4 input blocks integer": ("blocks", GREY),
        "W4 channel": ("channels", ORANGE),
        "W4 4 input blocks integer reordered": ("blocks, reordered", BLUE),
    }
    for place, (way, (name, colour)) in enumerate(ways.items()):
        ratios = [parts["searched"][way]["snr_db"] for parts in records.values()]
        bars = axes.bar(np.arange(len(ratios)) + 0.27 * (place - 1), ratios, width=0.25, color=colour, label=name)
        _number(axes, bars)
    found = [parts["searched"] for parts in records.values()]
    first, _, last = ways
    least = min(cells[last]["snr_db"] - cells[first]["snr_db"] for cells in found)
    axes.set(xticks=range(len(records)), xticklabels=[NETWORKS[network] for network in records], ylim=(0, 28))
    axes.set(ylabel="outputs, dB")
    axes.set_title(f"As many scales: reordering is worth {least:.1f} dB and more")
    axes.legend(ncols=3, loc="upper left")
    return figure


def npu() -> Figure:
    """Flash of the weights after Arm's compiler, and signal to noise."""
    records = {key.split(": ")[1]: record for key, record in read("flash").items() if key.startswith("resnet20: ")}
    names = sorted(records, key=lambda name: records[name]["snr_db"])
    colours = [ORANGE if "block" in name else BLUE for name in names]
    figure, (left, right) = panels(10.5, 0.42 * len(names) + 1.2, 2, sharey=True)
    for panel, values in (
        (left, [records[name]["encoded_weights"] / 1000 for name in names]),
        (right, [records[name]["snr_db"] for name in names]),
    ):
        for row, value in enumerate(values):
            panel.barh(row, value, color=colours[row])
            panel.text(value, row, f" {value:.1f}", va="center", fontsize=9)
        panel.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.15 * max(values)))
    wide, integers = records["6 bits per channel"], records["4 bits, 4 input blocks, integers"]
    saved, gain = 1 - wide["encoded_weights"] / integers["encoded_weights"], wide["snr_db"] - integers["snr_db"]
    left.set_xlabel("flash of the weights after Vela, kB")
    right.set_xlabel("outputs, dB")
    left.set_title(f"6 bits per channel: {saved:.0%} less flash ...")
    right.set_title(f"... than blocks of integers, and {gain:.1f} dB more")
    return figure


PLOTS = {
    "frontier": frontier.plot,
    "eight_bits": eight_bits,
    "few_bits": few_bits,
    "rounding": rounding,
    "block_scales": blocks,
    "npu": npu,
}


def _cell(bits: int, method: str) -> str:
    return f"W{bits} channel, {method}, 256 samples"


def _broken(names: Any) -> list[str]:
    return [name.replace(" ", "\n", 1) for name in names]


def _number(axes: Axes, bars: Any) -> None:
    for bar in bars:
        x, y = bar.get_x() + bar.get_width() / 2, bar.get_height()
        axes.text(x, y + 0.3, f"{y:.1f}", ha="center", fontsize=9)


def main() -> int:
    """Draw all plots."""
    for name, draw in PLOTS.items():
        write(draw, PICTURES / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
