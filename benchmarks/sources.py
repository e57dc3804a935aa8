"""Which models are taken: ``python -m benchmarks.sources [--only PART] [--seconds N]``.

Each source is quantized with ``w8a8_channel``, and with 4 bits for every kernel; beside it the TFLite converter's int8
file, where it takes the source. Each runs in a process of its own, which may take ``--seconds``; KerasHub is needed for
its models. Finished rows are kept in ``benchmarks/results/sources.json``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import keras

import tfptq
from benchmarks.cells import HERE
from benchmarks.converter import converter_int8
from benchmarks.records import Records
from benchmarks.source_cases import CASES
from benchmarks.tables import table, write_tables

RESULTS = Records("sources")
W8 = tfptq.QuantizationConfig.from_preset("w8a8_channel")
#: Every kernel has 4 bits, whatever a target would make of it.
W4 = tfptq.QuantizationConfig.from_preset("w4a8_channel").replace(target="any", edge_bits=None, rounding="nearest")
CONFIGS = {"w8a8": W8, "w4a8": W4}


def measure(name: str) -> dict[str, Any]:
    """Quantize a case; what is refused has the reason in the place of numbers."""
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, samples = CASES[name](Path(folder))
        for way, config in CONFIGS.items():
            record[way], float_content = _quantized(source, samples, config)
        if isinstance(source, keras.Model) and not isinstance(samples, dict) and float_content is not None:
            record["converter"] = _converted(source, samples, float_content)
    return record


def _quantized(source: Any, samples: Any, config: tfptq.QuantizationConfig) -> tuple[dict[str, Any], bytes | None]:
    """What came out, and the float file of the source."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = tfptq.quantize(source, samples, config, progress=False)
    except (ValueError, TypeError, RuntimeError) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:500]}, None
    report = result.report
    record = {
        "bytes": len(result.tflite),
        "db": _least(report.outputs),
        "seconds": round(time.perf_counter() - start, 1),
        "keras_graph": result.keras_model is not None,
        "bits": dict(Counter(str(layer.bits) for layer in report.layers)),
        "float_operators": dict(Counter(f"{item.operator}: {item.reason}" for item in report.float_operators)),
    }
    return record, result.float_tflite


def _converted(model: keras.Model, samples: Any, float_content: bytes) -> dict[str, Any]:
    """The converter's int8 file of a Keras model."""
    start = time.perf_counter()
    try:
        content = converter_int8(model, samples)
    except Exception as error:  # whatever the converter raises
        return {"refused": f"{type(error).__name__}: {error}"[:300]}
    seconds = round(time.perf_counter() - start, 1)
    found = tfptq.evaluate(content, samples, float_content, latency_seconds=0.0, progress=False)
    return {"bytes": len(content), "db": None if found.snr_db is None else round(found.snr_db, 1), "seconds": seconds}


def _least(decibels: dict[str, float | None]) -> float | None:
    values = [value for value in decibels.values() if value is not None]
    return round(min(values), 1) if values else None


def page(records: dict[str, dict[str, Any]]) -> str:
    """The table of ``docs/benchmarks.md``."""
    heads = ["source", "taken as", "kernels", "with 4 bits", "8 bits, dB", "converter, dB", "kB", "converter, kB", "s"]
    rows = [_row(name, records[name]) for name in CASES if "unmeasured" not in records.get(name, {"unmeasured": ""})]
    return table(heads, rows)


def _row(name: str, record: dict[str, Any]) -> list[str]:
    wide, narrow, other = (record.get(key, {}) for key in ("w8a8", "w4a8", "converter"))
    refused = next((it["refused"] for it in (record, wide, narrow) if "refused" in it), None)
    if refused is not None:
        return [name, f"**refused**: {refused.partition('. ')[0][:160]}", *[""] * 7]
    kernels = sum(narrow["bits"].values())
    way = "Keras graph" if wide["keras_graph"] else "float file"
    cells = [str(kernels), str(narrow["bits"].get("4", 0)), _cell(wide["db"]), _cell(other.get("db"))]
    sizes = [_cell(wide["bytes"] / 1000), _cell(other["bytes"] / 1000) if "bytes" in other else ""]
    return [name, way, *cells, *sizes, _cell(wide["seconds"])]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _measure_apart(name: str, seconds: int) -> dict[str, Any]:
    """Measure a case in a process of its own, which memory and time are bounded by."""
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "record.json", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "benchmarks.sources", "--case", name, str(output)]
        try:
            with open(log, "wb") as sink:
                done = subprocess.run(command, stdout=sink, stderr=sink, cwd=HERE.parent, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"unmeasured": f"more than {seconds} s"}
        if done.returncode:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            return {"refused": f"exit code {done.returncode}: {''.join(last)[:300]}"}
        return json.loads(output.read_text(encoding="utf-8"))


def main() -> int:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="part of the names of the cases to measure")
    parser.add_argument("--seconds", type=int, default=600, help="most time for a case (default 600)")
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    parser.add_argument("--tables-only", action="store_true", help="only write the table")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "OUTPUT"), help="measure one case in this process")
    arguments = parser.parse_args()
    if arguments.case:
        name, output = arguments.case
        Path(output).write_text(json.dumps(measure(name)), encoding="utf-8")
        return 0
    for name in () if arguments.tables_only else CASES:
        known = RESULTS.read().get(name, {"unmeasured": ""})
        if arguments.only in name and (arguments.again or "unmeasured" in known):
            RESULTS.keep(name, _measure_apart(name, arguments.seconds))
    write_tables({"sources": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
