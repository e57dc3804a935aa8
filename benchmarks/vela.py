"""What an NPU compiler makes of the files: ``python -m benchmarks.vela [--networks ...] [--accelerator ...]``.

Arm's ``vela`` compiles each file, with its float ends cut off, for an Ethos-U NPU, tuned for size. It says how many
operators it leaves on the CPU, how much flash the NPU's constants take, and estimates the time of one inference. It
compresses weights without loss: 4-bit codes in int8 tensors take few distinct values, and so fewer bytes.
"""

import argparse
import csv
import json
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from benchmarks import blocks, measure, tables, worker, zoo
from benchmarks.tools import Tool
from tfptq import quantize_keras_model
from tfptq.base.files import write_atomically
from tfptq.cli.sweep_cells import Cell
from tfptq.config import PerChannel
from tfptq.tflite.model_reader import read_model

VELA = Tool("vela", "TFPTQ_VELA")
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "vela.json"
NETWORKS = ("resnet20", "mobilenetv2", "resnet56")
#: Method -> what the table calls it. Methods with a config are made here, the others by ``benchmarks.methods``.
TITLES = {
    "converter": "TFLite converter, int8",
    "w8a8_channel": "`w8a8_channel`",
    "w8a8_shift": "`w8a8_shift`",
    "w4_channel": "4 bits per channel, `int8`",
    "w4_block": "4 bits, 4 input blocks reordered, integers, `int8`",
    "w4_block_few": "4 bits, 4 input blocks reordered, integers 2, 3, 4, 6, `int8`",
    "w4_block_few_edges": "the same, first and last layer at 4 bits too",
    "w4_block_shift": "4 bits, 4 input blocks reordered, shifts, `int8`",
    "w4_block_shift_edges": "the same, first and last layer at 4 bits too",
}
_INTEGER, _SHIFT = (Cell(blocks.PRESET, 4, kind, True) for kind in ("integer", "shift"))
_FEW = _INTEGER.config(blocks.BASE).replace(multipliers=(2, 3, 4, 6))
CONFIGS = {
    "w4_channel": Cell(PerChannel()).config(blocks.BASE),
    "w4_block": _INTEGER.config(blocks.BASE),
    "w4_block_few": _FEW,
    "w4_block_few_edges": _FEW.replace(edge_bits=None),
    "w4_block_shift": _SHIFT.config(blocks.BASE),
    "w4_block_shift_edges": _SHIFT.config(blocks.BASE.replace(edge_bits=None)),
}


def compile_file(content: bytes, accelerator: str) -> dict[str, Any]:
    """Compile a ``.tflite`` file.

    Args:
        content: the file.
        accelerator: name that ``vela --accelerator-config`` takes.

    Returns:
        ``cpu_operators``, ``npu_operators``, names of those on the CPU, ``flash_bytes`` that the compiled file's
        constants take, bytes of ``weights`` before and after encoding, bytes of the compiled file, SRAM, time, cycles,
        and the number of ``partitions`` that run on the NPU.

    Raises:
        ToolError: the compiler is missing or failed.
        RuntimeError: its summary cannot be read; with the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.tflite"
        source.write_bytes(without_float_ends(content))
        options = ["--accelerator-config", accelerator, "--optimise", "Size", "--show-cpu-operations"]
        printed = VELA.run(*options, "--output-dir", folder, source)
        (path,) = Path(folder).glob("*_summary_*.csv")
        with open(path, newline="", encoding="utf-8") as file:
            (summary,) = csv.DictReader(file)
        compiled = (Path(folder) / "network_vela.tflite").read_bytes()
    operators = read_model(compiled).subgraphs[0].operators
    return read_output(printed) | {
        "flash_bytes": round(1024 * float(summary["off_chip_flash_memory_used"])),
        "weights": int(summary["total_original_weights"]),
        "encoded_weights": int(summary["total_npu_encoded_weights"]),
        "compiled_bytes": len(compiled),
        "sram_bytes": round(1024 * float(summary["sram_memory_used"])),
        "milliseconds": 1000 * float(summary["inference_time"]),
        "cycles": int(summary["cycles_total"]),
        "partitions": sum(operator.kind == "CUSTOM ethos-u" for operator in operators),
    }


def without_float_ends(content: bytes) -> bytes:
    """The file with integer ends: QUANTIZE after a float input and DEQUANTIZE before a float output are cut off."""
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    graph.signatureDefs = None
    (main,) = graph.subgraphs
    inner_of, kept = {}, []
    for operator in main.operators:
        outer, inner = operator.inputs[0], operator.outputs[0]
        kind = measure.operator_name(graph, operator)
        if kind == "QUANTIZE" and outer in main.inputs:
            inner_of[outer] = inner
        elif kind == "DEQUANTIZE" and inner in main.outputs:
            inner_of[inner] = outer
        else:
            kept.append(operator)
    main.operators = kept
    main.inputs, main.outputs = ([inner_of.get(index, index) for index in ends] for ends in (main.inputs, main.outputs))
    builder = flatbuffers.Builder(len(content))
    builder.Finish(graph.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read_output(text: str) -> dict[str, Any]:
    """Counts of operators in what the compiler prints.

    Raises:
        RuntimeError: they are not there.
    """
    counts = {unit: re.search(rf"^{unit} operators = (\d+)", text, re.MULTILINE) for unit in ("CPU", "NPU")}
    if None in counts.values():
        raise RuntimeError(f"vela does not say how many operators are on the CPU: {text[-2000:]}")
    names = re.findall(r"^\s*CPU: (\w+) =", text, re.MULTILINE)
    return {f"{unit.lower()}_operators": int(found[1]) for unit, found in counts.items()} | {"on_cpu": sorted(names)}


def made(model: zoo.ZooModel, method: str) -> bytes:
    """The file of a method, from the cache or made now."""
    if method not in CONFIGS:
        return worker.made(model, method)
    path = worker.file_path(model, method)
    if not path.exists():
        made_now = quantize_keras_model(model.keras_model, model.calibration, CONFIGS[method], progress=False)
        path.write_bytes(made_now.tflite)
    return path.read_bytes()


def table(results: dict[str, Any]) -> str:
    """Operators, flash and estimated time, one row per network and method."""
    head = ["network", "file", "kB", "on NPU", "on CPU", "flash, kB", "of the converter's", "weights, kB", "ms"]
    rows = []
    for network, records in results["records"].items():
        for method, title in TITLES.items():
            if method in records:
                rows.append([network, title, *_cells(records[method], records["converter"])])
    return tables.table(head, rows)


def _cells(record: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    on_cpu = ", ".join(record["on_cpu"])
    return [
        f"{record['file_bytes'] / 1000:.0f}",
        str(record["npu_operators"]),
        f"{record['cpu_operators']}" + (f" ({on_cpu})" if on_cpu else ""),
        f"{record['flash_bytes'] / 1000:.0f}",
        f"{record['flash_bytes'] / baseline['flash_bytes']:.2f}",
        f"{record['encoded_weights'] / 1000:.0f}",
        f"{record['milliseconds']:.2f}",
    ]


def main() -> int:
    """Compile, write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vela", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=zoo.ENTRIES, metavar="NETWORK")
    parser.add_argument("--methods", nargs="+", default=TITLES, choices=TITLES, metavar="METHOD")
    parser.add_argument("--accelerator", default="ethos-u55-128", help="Ethos-U configuration (default ethos-u55-128)")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples (default 256)")
    arguments = parser.parse_args()
    for network in arguments.networks:
        model = zoo.load(network, arguments.samples)
        for method in arguments.methods:
            content = made(model, method)
            record = {"file_bytes": len(content), **compile_file(content, arguments.accelerator)}
            results = _results()
            results |= {"vela": metadata.version("ethos-u-vela"), "accelerator": arguments.accelerator}
            results["records"].setdefault(network, {})[method] = record
            write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
            print(network, method, record, flush=True)
    tables.write_tables({"vela": table(_results())})
    return 0


def _results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"records": {}}


if __name__ == "__main__":
    sys.exit(main())
