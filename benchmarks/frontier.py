"""Bytes against latency against accuracy: ``python -m benchmarks.frontier [--networks ...] [--latency]``.

Where one budget rules, it is varied: that of latency on networks of k x k convolutions, which cost time when they are
gathered; that of bytes on MobileNetV2, whose pointwise layers cost none. One draw of samples; ``--latency`` measures
the latency of all files, once the machine is quiet. Finished points are kept in ``benchmarks/results/frontier.json``.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from benchmarks import targets
from benchmarks.records import Records
from benchmarks.tables import PICTURES, table, write_tables
from docs.draw.style import BLUE, GREEN, ORANGE, panels, write
from tfptq import MixedPrecision, QuantizationConfig

RESULTS = Records("frontier")
LATENCY_BUDGETS = (1.0, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0)
#: How bits are chosen, and from which -> shares of the bytes of INT8.
MIXTURES = {
    ("sensitivity", (4, 8)): (0.54, 0.58, 0.65),
    ("sensitivity", (2, 4, 8)): (0.42, 0.48, 0.54, 0.58),
    ("coding_length", (4, 8)): (0.54, 0.58),
}
NETWORKS = ("ic01", "resnet20", "mobilenetv2")


def points(network: str) -> Iterator[tuple[str, QuantizationConfig]]:
    """Name -> config of each point of a network's curves."""
    if network != "mobilenetv2":
        for budget in LATENCY_BUDGETS:
            yield (
                f"latency_budget={budget}",
                QuantizationConfig.from_preset("w4a8_channel").replace(latency_budget=budget),
            )
        return
    for (by, bits), ratios in MIXTURES.items():
        for ratio in ratios:
            mixed = MixedPrecision(bits, by, ratio=ratio)
            name = f"{by} {','.join(map(str, bits))} ratio={ratio}"
            yield name, QuantizationConfig.from_preset("w4a8_channel").replace(mixed_precision=mixed)


def page(records: dict[str, dict[str, Any]]) -> str:
    """The table."""
    rows = []
    for name, record in records.items():
        network, _, point = name.partition(": ")
        latency = " / ".join(f"{value:.2f}" for value in record.get("latency", {}).values())
        ratio, agreement = record["bytes"] / record["peer_bytes"], 100 * record["agreement"]
        below = 100 * (record["float_accuracy"] - record["accuracy"])
        numbers = [f"{ratio:.2f}", latency, f"{below:.1f}", f"{agreement:.1f}", f"{record['snr_db']:.1f}"]
        rows.append([network, f"`{point}`", *numbers])
    head = ["network", "point", "bytes, of the converter's", "latency, 1 / 2 threads", "below float", "agreement", "dB"]
    return table(head, rows)


def plot() -> Figure:
    """Signal to noise over bytes, one panel for each network; points are labelled with their latency, once measured."""
    records = RESULTS.read()
    figure, axes = panels(12, 4, len(NETWORKS))
    for network, panel in zip(NETWORKS, axes, strict=True):
        curves: dict[str, list[tuple[float, float, str]]] = {}
        for name, record in records.items():
            if name.startswith(f"{network}: "):
                note = f"{record['latency']['1']:.2f} x" if "latency" in record else ""
                point = record["bytes"] / record["peer_bytes"], record["snr_db"], note
                curves.setdefault(name.partition(": ")[2].rpartition("=")[0], []).append(point)
        for (curve, found), colour in zip(curves.items(), (BLUE, ORANGE, GREEN), strict=False):
            sizes, ratios, notes = zip(*found, strict=True)
            panel.plot(sizes, ratios, "o-", color=colour, label=curve.removesuffix(" ratio"))
            for size, ratio, note in zip(sizes, ratios, notes, strict=True):
                panel.annotate(note, (size, ratio), (4, -11), textcoords="offset points", fontsize=8)
        points = sorted(point for found in curves.values() for point in found)
        (least, low, _), (most, high, _) = points[0], points[-1]
        panel.set(xlabel="bytes, of the converter's int8 file", ylabel="outputs, dB")
        panel.set_title(f"{network}: {least / most - 1:.0%} bytes, {low - high:.0f} dB")
        panel.legend(loc="lower right", fontsize=9)
    return figure


def main() -> int:
    """Measure what is missing, and write table and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--latency", action="store_true", help="measure latency only")
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    for network in () if arguments.tables_only else arguments.networks:
        for point, config in points(network):
            name = f"{network}: {point}"
            file = f"frontier {name}"
            record = RESULTS.read().get(name)
            if record is None and not arguments.latency:
                RESULTS.keep(name, targets.measure_draw(network, config, 1, file))
            elif record is not None and arguments.latency and "latency" not in record:
                RESULTS.keep(name, {**record, "latency": targets.measure_latency(network, file)})
    write_tables({"frontier": page(RESULTS.read())})
    write(plot, PICTURES / "frontier.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
