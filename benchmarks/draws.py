"""The close comparisons on several draws of the calibration samples: ``python -m benchmarks.draws [--parts ...]``.

One choice of calibration samples moves a file's top-1 by about half a point and its signal to noise by some tenths of
a dB, as much as many of the limits on this page leave. Here every file is made from each of ``DRAWS`` random choices,
the same for all ways of quantizing, and the means of the differences are judged. Finished files are kept in
``benchmarks/results/draws.json`` and are not measured again. The parts:

* ``w8a8``: 8-bit weights and activations against float and against the TFLite converter, also by agreement with float;
* ``rounding``: learned rounding at 4 and 3 bits against float, bits by coding length against 4 bits everywhere;
* ``blocks``: nearest rounding at 4 bits, reordered blocks against channels, integer scales against float ones.
"""

import json
import sys
from typing import Any

import numpy as np

from benchmarks import converter, measure, worker, zoo
from benchmarks.cells import HERE, parse_arguments
from benchmarks.comparisons import NETWORKS, PARTS, Comparison, Way, comparisons
from benchmarks.tables import met, table, write_tables
from tfptq import QuantizationConfig, quantize_keras_model
from tfptq.base.files import write_atomically

RESULTS = HERE / "results" / "draws.json"
DRAWS = 8
#: Unit of a comparison -> field of the records, and factor.
UNITS = {"points": ("accuracy", 100), "agreement": ("agreement", 100), "dB": ("snr_db", 1)}
#: Calibration samples of a draw: three quarters of what there is where there are few, 256 elsewhere.
SAMPLES = {"vww01": 96, "kws01": 90, "ad01": 30}


def measure_draw(model: zoo.ZooModel, way: Way) -> dict[str, Any]:
    """Quantize on the calibration samples of ``model`` and judge the file in LiteRT, as ``worker.quality`` does."""
    if way.config is None:
        content = converter.converter_int8(model.keras_model, model.calibration)
    else:
        content = quantize_keras_model(model.keras_model, model.calibration, way.config, progress=False).tflite
    outputs = measure.run(content, model.evaluation[0], threads=2)
    config = way.config and way.config.to_json(indent=None)
    float_accuracy = model.accuracy(worker.float_outputs(model))
    return {"config": config, "float_accuracy": float_accuracy, **worker.quality(model, outputs)}


def main() -> int:
    """Measure what is missing, draw by draw, and write the tables."""
    arguments = parse_arguments("benchmarks.draws", __doc__, NETWORKS, PARTS)
    pairs = [(part, network) for part in arguments.parts for network in arguments.networks]
    for part, network in () if arguments.tables_only else pairs:
        compared = comparisons(part, network)
        ways = {way.title: way for item in compared for way in (item.way, item.other) if way}
        for draw in range(1, DRAWS + 1):
            model = zoo.load(network, SAMPLES.get(network, 256), draw=draw)
            for way in list(ways.values())[: arguments.cells]:
                _once(model, way)
    write_tables({"draws": differences(read_results())})
    return 0


def differences(results: dict[str, Any]) -> str:
    """Mean differences over the draws that both sides have, one row per comparison, with one standard error."""
    rows = []
    for item in (item for part in PARTS for network in NETWORKS for item in comparisons(part, network)):
        found = _differences(results, item)
        if len(found) > 1:
            mean, error = np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))
            other = item.other.title if item.other else "float"
            target = f"{item.way.title} against {other}: at least {item.at_least:+.1f} {item.unit}"
            measured = [f"{mean:+.2f} ± {error:.2f}", f"{min(found):+.2f} to {max(found):+.2f}", str(len(found))]
            rows.append([item.network, target, *measured, met(mean >= item.at_least - 1e-9)])
    return table(["network", "target", "measured", "draws", "number", "met"], rows)


def _differences(results: dict[str, Any], item: Comparison) -> list[float]:
    """Difference of each draw, in the comparison's unit."""
    ours = records_of(results, item.network, item.way)
    if item.other is None:
        return [100 * (record["accuracy"] - record["float_accuracy"]) for record in ours.values()]
    theirs = records_of(results, item.network, item.other)
    key, factor = UNITS[item.unit]
    return [factor * (record[key] - theirs[draw][key]) for draw, record in ours.items() if draw in theirs]


def records_of(results: dict[str, Any], network: str, way: Way) -> dict[str, dict[str, Any]]:
    """Draw -> record of a way on a network, as far as there are any."""
    found = results.get(network, {}).get(way.title, {})
    return {draw: record for draw, record in found.items() if _config(record) == way.config}


def _config(record: dict[str, Any]) -> QuantizationConfig | None:
    return record["config"] and QuantizationConfig.from_json(record["config"])


def read_results() -> dict[str, Any]:
    """Network -> title of the way -> draw -> record."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def _once(model: zoo.ZooModel, way: Way) -> None:
    """Measure unless the record is there already, and keep it at once."""
    draw = str(model.draw)
    if draw in records_of(read_results(), model.name, way):
        return
    record = measure_draw(model, way)
    results = read_results()  # read again: another run may have added to it meanwhile
    results.setdefault(model.name, {}).setdefault(way.title, {})[draw] = record
    write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
    print(model.name, way.title, "draw", draw, {key: record[key] for key in ("accuracy", "snr_db")}, flush=True)


if __name__ == "__main__":
    sys.exit(main())
