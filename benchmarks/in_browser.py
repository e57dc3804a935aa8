"""Files in LiteRT.js: ``python -m benchmarks.in_browser [--networks ...]`` (``make web`` installs it).

Latency is measured in headless Chromium on one thread of WebAssembly, the files of a network taking turns, and is given
beside that of ``w8a8_channel``. The same files are timed in LiteRT on this machine. Bytes to download are those of the
file after gzip and brotli at their best. Of all files, the outputs of some samples are compared with those of LiteRT in
Python, in steps of the outputs' grid.

Files are kept in the cache, and records in ``benchmarks/results/in_browser.json``.
"""

import argparse
import gzip
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import brotli
import numpy as np

from benchmarks import measure, zoo
from benchmarks.layout_costs import least_seconds
from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from benchmarks.web.litert_js import LiteRtJs, open_litert_js
from tfptq import QuantizationConfig, quantize_keras_model
from tfptq.config import TARGETS

HERE = Path(__file__).resolve().parent
RESULTS = Records("in_browser")
NETWORKS = ("kws01", "vww01", "resnet20", "mobilenetv2")
#: Calibration samples: three quarters of what there is where there are few, 256 elsewhere.
SAMPLES = {"vww01": 96, "kws01": 90}
#: Samples whose outputs are compared.
COMPARED = 16
#: As target ``cpu``, for one sample at a time.
PACKED = replace(TARGETS["cpu"], name="packed", batch_size=1)
#: What the table calls a way -> preset and target.
WAYS = {
    "`w8a8_channel`": ("w8a8_channel", TARGETS["web"]),
    "`w4a8_channel`": ("w4a8_channel", TARGETS["web"]),
    "`w4a8_channel`, packed": ("w4a8_channel", PACKED),
}
_FIRST = next(iter(WAYS))


def quantized(model: zoo.ZooModel, way: str) -> bytes:
    """The file of a network, kept in the cache."""
    preset, target = WAYS[way]
    path = zoo.cache_folder() / f"web_{model.name}_{preset}_{target.name}.tflite"
    if not path.exists():
        config = QuantizationConfig.from_preset(preset).replace(target=target)
        path.write_bytes(quantize_keras_model(model.keras_model, model.calibration, config, progress=False).tflite)
    return path.read_bytes()


def measure_network(network: str, litert_js: LiteRtJs) -> dict[str, dict[str, Any]]:
    """Way -> record."""
    model = zoo.load(network, SAMPLES.get(network, 256))
    files = {way: quantized(model, way) for way in WAYS}
    x, _ = model.evaluation
    in_browser, here = litert_js.seconds(files), least_seconds(files)
    return {
        way: {
            "bytes": len(content),
            "gzip": len(gzip.compress(content, 9)),
            "brotli": len(brotli.compress(content)),
            "milliseconds": in_browser[way] * 1e3,
            "ratio": in_browser[way] / in_browser[_FIRST],
            "ratio_cpu": here[way] / here[_FIRST],
            "accuracy": model.accuracy(measure.run(content, x, threads=2)),
            "steps": _steps(content, np.asarray(x[:COMPARED]), litert_js),
            **litert_js.versions,
        }
        for way, content in files.items()
    }


def _steps(content: bytes, x: np.ndarray, litert_js: LiteRtJs) -> int:
    """Largest difference of an output from LiteRT's in Python, in steps of the grid that it was on."""
    outputs, expected = litert_js.outputs(content, x), measure.run(content, x).reshape(len(x), -1)
    step = np.diff(np.unique(expected)).min()
    return int(np.rint(np.abs(outputs - expected).max() / step))


def page(records: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The table."""
    head = ["network", "file", "bytes", "gzip", "brotli", "ms in the browser", "ratio", "ratio in LiteRT"]
    rows = [
        [network, way, *_cells(found[way])] for network in NETWORKS if (found := records.get(network)) for way in WAYS
    ]
    return table([*head, "accuracy", "steps from LiteRT"], rows)


def _cells(record: dict[str, Any]) -> list[str]:
    sizes = [f"{record[name]:,}" for name in ("bytes", "gzip", "brotli")]
    ratios = [f"{record['ratio']:.2f}", f"{record['ratio_cpu']:.2f}"]
    return [*sizes, f"{record['milliseconds']:.3g}", *ratios, f"{100 * record['accuracy']:.1f}", str(record["steps"])]


def main() -> int:
    """Measure, network by network, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_browser", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.tables_only:
        with open_litert_js() as litert_js:
            for network in arguments.networks:
                RESULTS.keep(network, measure_network(network, litert_js))
    write_tables({"in_browser": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
