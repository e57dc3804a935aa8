"""Run the benchmarks and write their tables: ``python -m benchmarks [--models ...] [--methods ...]``.

Each (model, method) is measured in a process of its own, one after the other. Records that are there already are kept
unless ``--again`` is given; so an interrupted run goes on where it stopped.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from benchmarks import tables

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "w8a8.json"
MODELS = ("ic01", "vww01", "kws01", "ad01", "resnet20", "resnet20_pad", "resnet56", "mobilenetv2", "mobilenetv2_bn")
METHODS = ("float", "converter", "litert_w8a8", "litert_w4a8", "w8a8_layer", "w8a8_shift", "w8a8_channel")
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def main() -> int:
    """Measure what is missing, then write the tables. Exit code 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples (default 256)")
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    parser.add_argument("--tables-only", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    failed = []
    for model in arguments.models if not arguments.tables_only else ():
        for method in arguments.methods:
            if arguments.again or method not in _results()["records"].get(model, {}):
                failed += _measure(model, method, arguments.samples)
    tables.write(_results())
    for line in failed:
        print("failed:", line, file=sys.stderr)
    return 1 if failed else 0


def _results() -> dict:
    """The records so far, networks in the order of ``MODELS``."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"records": {}}
    records = {model: results["records"][model] for model in MODELS if model in results["records"]}
    return {"versions": {name: metadata.version(name) for name in PACKAGES}, "records": records}


def _measure(model: str, method: str, samples: int) -> list[str]:
    """Measure one pair and keep its record at once; the pair's name comes back if it failed."""
    print(f"{model} {method}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "record.json", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "benchmarks.worker", model, method, str(samples), str(output)]
        with open(log, "wb") as sink:
            done = subprocess.run(command, stdout=sink, stderr=sink, cwd=HERE.parent, check=False)
        if done.returncode:
            print(log.read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
            return [f"{model} {method} (exit code {done.returncode})"]
        record = json.loads(output.read_text(encoding="utf-8"))
    results = _results()  # read again: another run may have added to it meanwhile
    results["records"].setdefault(model, {})[method] = record
    RESULTS.parent.mkdir(exist_ok=True)
    partial = RESULTS.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(RESULTS)
    return []


if __name__ == "__main__":
    sys.exit(main())
