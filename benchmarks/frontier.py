"""Bytes against latency against accuracy: ``python -m benchmarks.frontier [--networks ...] [--latency]``.

Where one budget rules, it is varied: that of latency on networks of k x k convolutions, which cost time when they are
gathered; that of bytes on MobileNetV2, whose pointwise layers cost none. One draw of samples; ``--latency`` measures
the latency of all files, once the machine is quiet. Finished points are kept in ``benchmarks/results/frontier.json``.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.cells import HERE
from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from tfptq import MixedPrecision, QuantizationConfig

RESULTS = Records("frontier")
PLOT = HERE.parent / "docs" / "frontier.png"
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
    """The table of ``docs/benchmarks.md``."""
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


def write_plot(path: Path, records: dict[str, dict[str, Any]]) -> None:
    """Signal to noise over bytes, one panel for each network; points are labelled with their latency."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    networks = [network for network in NETWORKS if any(name.startswith(f"{network}:") for name in records)]
    figure, panels = plt.subplots(1, len(networks), figsize=(4.6 * len(networks), 4), squeeze=False)
    for network, panel in zip(networks, panels[0], strict=True):
        curves: dict[str, list[dict[str, Any]]] = {}
        for name, record in records.items():
            if name.startswith(f"{network}:"):
                curves.setdefault(name.partition(": ")[2].rpartition("=")[0], []).append(record)
        for curve, found in curves.items():
            ratios = [record["bytes"] / record["peer_bytes"] for record in found]
            panel.plot(ratios, [record["snr_db"] for record in found], "o-", label=curve.removesuffix(" ratio"))
            for ratio, record in zip(ratios, found, strict=True):
                if len(curves) == 1 and "latency" in record:
                    note = f"{record['latency']['1']:.2f} x"
                    panel.annotate(
                        note, (ratio, record["snr_db"]), textcoords="offset points", xytext=(4, 4), fontsize=8
                    )
        panel.set(title=network, xlabel="bytes, of the converter's int8 file", ylabel="signal to noise, dB")
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


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
    write_tables(targets.PAGE, {"frontier": page(RESULTS.read())})
    write_plot(PLOT, RESULTS.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
