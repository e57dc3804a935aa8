"""The same network through Keras and through its float file: ``python -m benchmarks.preparation [--only PART]``.

Networks of the zoo are quantized as Keras models and as the float ``.tflite`` that the stock converter makes of them,
with the preparation of channels that a preset asks for and without it. Finished rows are kept in
``benchmarks/results/preparation.json``.
"""

import argparse
import statistics
import sys
import time
import warnings
from typing import Any

import tfptq
from benchmarks import zoo
from benchmarks.records import Record, Records
from benchmarks.tables import table, write_tables
from tfptq.float_file.convert import convert_float

RESULTS = Records("preparation")
NETWORKS = ("kws01", "vww01", "ic01", "resnet20", "mobilenetv2")
PRESETS = ("w8a8_shift", "w8a8_channel", "w4a8_channel", "w4a8_block")
CALIBRATION, EVALUATION = 64, 1000
#: A large network has fewer samples to evaluate.
LARGE, FEW = "mobilenetv2", 200
STEPS = ("equalize", "rotate", "reorder")


def measure(name: str, preset: str, draws: int) -> Record:
    """Noise of the outputs on other samples than those of the calibration, in dB, for each way.

    It is the mean over some random choices of the calibration samples.
    """
    samples = FEW if name == LARGE else EVALUATION
    networks = [zoo.load(name, CALIBRATION, samples, draw) for draw in range(draws)]
    reference = convert_float(networks[0].keras_model)
    prepared = tfptq.QuantizationConfig.from_preset(preset)
    bare = prepared.replace(**dict.fromkeys(STEPS, False))
    record: Record = {}
    for way, source in (("keras", networks[0].keras_model), ("file", reference)):
        for kind, config in (("prepared", prepared), ("bare", bare)):
            found = [_quantized(source, network, config, reference) for network in networks]
            decibels = [each.pop("db") for each in found]
            record[f"{way}, {kind}"] = {**found[0], "each": decibels, "db": round(statistics.fmean(decibels), 2)}
    return record


def _quantized(source: Any, network: zoo.ZooModel, config: tfptq.QuantizationConfig, reference: bytes) -> Record:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = tfptq.quantize(source, network.calibration, config, progress=False)
    seconds = round(time.perf_counter() - start, 1)
    samples, _ = network.evaluation
    found = tfptq.evaluate(result.tflite, samples, reference, latency_seconds=0.0, progress=False)
    steps = [step for step in STEPS if step in result.report.float_differences]
    return {"db": round(found.snr_db, 2), "bytes": len(result.tflite), "seconds": seconds, "steps": steps}


def page(records: dict[str, Record]) -> str:
    """The table of the documents."""
    heads = [
        "network",
        "preset",
        "Keras, bare",
        "file, bare",
        "Keras, prepared",
        "file, prepared",
        "gain",
        "steps",
        "choices",
    ]
    rows = []
    for name in NETWORKS:
        for preset in PRESETS:
            record = records.get(f"{name} {preset}")
            if record is not None:
                cells = [record[f"{way}, {kind}"]["db"] for kind in ("bare", "prepared") for way in ("keras", "file")]
                steps = ", ".join(record["file, prepared"]["steps"])
                gain = f"{cells[3] - cells[1]:+.1f}"
                draws = str(len(record["file, prepared"]["each"]))
                rows.append([name, f"`{preset}`", *(f"{value:.1f}" for value in cells), gain, steps, draws])
    return table(heads, rows)


def main() -> int:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparation", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="part of the names of the rows to measure")
    parser.add_argument("--draws", type=int, default=3, help="random choices of calibration samples (default 3)")
    parser.add_argument("--tables-only", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    for name in () if arguments.tables_only else NETWORKS:
        for preset in PRESETS:
            key = f"{name} {preset}"
            if arguments.only in key and key not in RESULTS.read():
                RESULTS.keep(key, measure(name, preset, arguments.draws))
    write_tables({"preparation": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
