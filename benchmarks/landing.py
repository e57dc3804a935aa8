"""The table of the README: ``python -m benchmarks.landing [--latency]``.

Float, the TFLite converter, litert-quantizer at its best and tfptq on MobileNetV2 and a small network, on the same
calibration samples. Latency is that of one thread, as a multiple of the converter's file in interleaved runs;
``--latency`` measures it, once the machine is quiet. Results are kept in ``benchmarks/results/landing.json``.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import converter, measure, peers, targets, zoo
from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from tfptq import QuantizationConfig, quantize_keras_model

RESULTS = Records("landing")
NETWORKS = {"mobilenetv2": "MobileNetV2", "vww01": "vww01"}
Maker = Callable[[Any, np.ndarray], bytes]


def ours(preset: str) -> Maker:
    """Makes the file of a preset."""
    config = QuantizationConfig.from_preset(preset)
    return lambda model, x: quantize_keras_model(model, x, config, progress=False).tflite


MAKERS: dict[str, Maker] = {
    "float": lambda model, x: converter.float_file(model),
    "TFLite converter, int8": converter.converter_int8,
    "litert-quantizer 0.11, 8 bits": peers.litert_w8a8,
    "litert-quantizer 0.11, 4 bits": peers.litert_w4a8,
    "**tfptq**, 8 bits (default)": ours("w8a8_shift"),
    "**tfptq**, 4 bits (`w4a8_channel`)": ours("w4a8_channel"),
}


def measure_file(model: zoo.ZooModel, maker: Maker, name: str) -> dict[str, Any]:
    """Make a file, keep it in the cache, and judge it."""
    content = maker(model.keras_model, model.calibration)
    targets.kept_file(name).write_bytes(content)
    expected = targets.float_outputs(model)
    found = measure.run(content, model.evaluation[0], threads=2)
    return {
        "bytes": len(content),
        "accuracy": model.accuracy(found),
        "agreement": float(np.mean(model.decisions(expected) == model.decisions(found))),
        "snr_db": float(10 * np.log10(np.square(expected).sum() / max(np.square(expected - found).sum(), 1e-30))),
    }


def page(records: dict[str, dict[str, Any]]) -> str:
    """One row for each way, and for each network accuracy, agreement with float, bytes and latency."""
    head, rows = [""], []
    for title in NETWORKS.values():
        head += [f"{title}: top-1", "agreement", "MB", "latency"]
    for way in MAKERS:
        row = [way]
        for network in NETWORKS:
            record = records[f"{network}: {way}"]
            latency = f"{record['latency']:.2f}" if "latency" in record else ""
            agreement = "" if way == "float" else f"{100 * record['agreement']:.1f} %"
            row += [f"{100 * record['accuracy']:.1f}", agreement, f"{record['bytes'] / 1e6:.2f}", latency]
        rows.append(row)
    return table(head, rows)


def main() -> int:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landing", description=__doc__.split("\n")[0])
    parser.add_argument("--latency", action="store_true", help="measure latency only")
    arguments = parser.parse_args()
    for network in NETWORKS:
        model = zoo.load(network, targets.SAMPLES.get(network, 256), draw=1)
        for way, maker in MAKERS.items():
            name = f"{network}: {way}"
            record, file = RESULTS.read().get(name), f"landing {network} {list(MAKERS).index(way)}"
            if record is None:
                record = measure_file(model, maker, file)
            elif arguments.latency and "latency" not in record:
                peer = targets.kept_file(f"landing {network} 1").read_bytes()
                content, x = targets.kept_file(file).read_bytes(), model.evaluation[0][:64]
                record = {**record, "latency": measure.latency(content, peer, x, 1)["ratio"]}
            else:
                continue
            RESULTS.keep(name, record)
    write_tables({"landing": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
