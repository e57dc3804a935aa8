"""What compilers and runtimes of others make of the files: ``python -m benchmarks.toolchains [--networks ...]``.

Files of target ``npu`` at 8 and 4 bits, INT4 files of target ``micro``, and the TFLite converter's int8 file, all with
integer ends, go through each tool. Where a tool runs the file, its outputs for some samples are compared with LiteRT's.

Tools live in environments of their own, since their requirements exclude each other. Each is looked for on ``PATH`` or
where a variable names it:

    TFPTQ_VELA        vela                        of the package ethos-u-vela
    TFPTQ_TOSA        tosa-converter-for-tflite   of the package of that name
    TFPTQ_OPENVINO    a Python with openvino
    TFPTQ_ONNX        a Python with tf2onnx, onnxruntime and tensorflow
    TFPTQ_QUALCOMM    a Python with ai-edge-litert and ai-edge-litert-sdk-qualcomm, and its SDK

Records are kept in ``benchmarks/results/toolchains.json`` and the tables in ``docs/benchmarks/toolchains.md``.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import toolchains_page, vela, zoo
from benchmarks.converter import converter_int8
from benchmarks.records import Records
from benchmarks.tools import Tool, ToolError
from tfptq import QuantizationConfig, quantize_keras_model
from tfptq.tflite.interface import read_interface
from tfptq.tflite.model_reader import read_model

HERE = Path(__file__).resolve().parent
FOREIGN = HERE / "foreign"
RESULTS = Records("toolchains")
NETWORKS = ("kws01", "ic01", "vww01", "ad01", "resnet20")
#: Calibration samples: three quarters of what there is where there are few, 256 elsewhere.
SAMPLES = {"vww01": 96, "kws01": 90, "ad01": 30}
#: Samples whose outputs are compared.
COMPARED = 16
#: File -> preset and target; the converter's has none.
CONFIGS = {
    "w8a8_shift": ("w8a8_shift", "npu"),
    "w8a8_channel": ("w8a8_channel", "npu"),
    "w4a8_channel": ("w4a8_channel", "npu"),
    "w4a8_block": ("w4a8_block", "npu"),
    "int4": ("w4a8_channel", "micro"),
}
FILES = ("converter", "w8a8_shift", "w4a8_channel", "int4")
ACCELERATORS = {"U55": "ethos-u55-128", "U65": "ethos-u65-256", "U85": "ethos-u85-256"}
TOSA = Tool("tosa-converter-for-tflite", "TFPTQ_TOSA")
OPENVINO = Tool("", "TFPTQ_OPENVINO", FOREIGN / "openvino_job.py")
ONNX = Tool("", "TFPTQ_ONNX", FOREIGN / "onnx_job.py")
QUALCOMM = Tool("", "TFPTQ_QUALCOMM", FOREIGN / "qualcomm_job.py")
COMPILER = Tool("g++", "CXX")
#: File, samples -> record.
Job = Callable[[bytes, np.ndarray], dict[str, Any]]


def file_of(model: zoo.ZooModel, name: str) -> bytes:
    """A file with integer ends, kept in the cache."""
    path = zoo.cache_folder() / f"toolchain_{model.name}_{name}.tflite"
    if not path.exists():
        if name in CONFIGS:
            preset, target = CONFIGS[name]
            config = QuantizationConfig.from_preset(preset).replace(target=target)
            content = quantize_keras_model(model.keras_model, model.calibration, config, progress=False).tflite
        else:
            content = vela.without_float_ends(converter_int8(model.keras_model, model.calibration))
        path.write_bytes(content)
    return path.read_bytes()


def coded_samples(content: bytes, x: np.ndarray) -> np.ndarray:
    """Codes of the input for real samples."""
    (row, *_) = read_interface(read_model(content))
    return np.clip(np.rint(x / row.scale) + row.zero_point, -128, 127).astype(np.int8)


def compile_with_vela(accelerator: str) -> Job:
    """Job that compiles for an Ethos-U."""
    return lambda content, _: vela.compile_file(content, accelerator) | {"version": metadata.version("ethos-u-vela")}


def legalize(content: bytes, _: np.ndarray) -> dict[str, Any]:
    """Turn a file into TOSA, and count its operators and those of TFLite that are left."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "net.tflite", Path(folder) / "net.mlir"
        source.write_bytes(content)
        TOSA.run("--text", "-o", target, source)
        text = target.read_text(encoding="utf-8")
    found = Counter(re.findall(r'^ *(?:%\S+ = )?"?(tosa|tfl)\.\w+', text, re.MULTILINE))
    return {
        "version": re.findall(r"version: (\S+)", TOSA.run("--version"))[0],
        "tosa": found["tosa"],
        "tfl": found["tfl"],
    }


def run_in(tool: Tool) -> Job:
    """Job that runs a file in another runtime, and compares the outputs with LiteRT's in steps of their grid."""

    def job(content: bytes, codes: np.ndarray) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            source, inputs, outputs = (Path(folder) / name for name in ("net.tflite", "in.npy", "out.npy"))
            source.write_bytes(content)
            np.save(inputs, codes)
            record = json.loads(tool.run(source, inputs, outputs).splitlines()[-1])
            found = np.load(outputs).astype(int).reshape(len(codes), -1)
        expected = litert_outputs(content, codes).reshape(len(codes), -1)
        same_class = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
        return record | {"steps": int(np.abs(found - expected).max()), "same_class": same_class}

    return job


def litert_outputs(content: bytes, codes: np.ndarray) -> np.ndarray:
    """Codes of the output, by LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for sample in codes:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result["index"])[0])
    return np.stack(outputs).astype(int)


def compile_for_qualcomm(content: bytes, _: np.ndarray) -> dict[str, Any]:
    """Compile a file with LiteRT's ahead-of-time compiler."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "net.tflite"
        source.write_bytes(content)
        return json.loads(QUALCOMM.run(source).splitlines()[-1])


JOBS: dict[str, Job] = {
    **{name: compile_with_vela(accelerator) for name, accelerator in ACCELERATORS.items()},
    "TOSA": legalize,
    "OpenVINO": run_in(OPENVINO),
    "ONNX": run_in(ONNX),
    "Qualcomm": compile_for_qualcomm,
}


def count_costs(content: bytes) -> dict[str, int]:
    """Totals that ``cpp/run_layers.cc`` prints for a file."""
    program = zoo.cache_folder() / "run_layers"
    source = HERE.parent / "cpp" / "run_layers.cc"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        COMPILER.run("-std=c++17", "-O2", "-o", program, source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        path.write_bytes(content)
        printed = Tool(str(program), "TFPTQ_RUN_LAYERS").run(path)
    (total,) = [line.split() for line in printed.splitlines() if line.endswith("  total")]
    return dict(zip(toolchains_page.COSTS, map(int, total), strict=False))


def measure(network: str, tools: list[str]) -> dict[str, Any]:
    """Tool -> file -> record, with ``"error"`` where it failed; and ``"costs"`` -> file -> totals."""
    model = zoo.load(network, SAMPLES.get(network, 256), COMPARED)
    x, _ = model.evaluation
    files = {name: file_of(model, name) for name in (*FILES, *CONFIGS)}
    found: dict[str, Any] = {"bytes": {name: len(content) for name, content in files.items()}}
    for tool in tools:
        found[tool] = {}
        for name in FILES:
            try:
                found[tool][name] = JOBS[tool](files[name], coded_samples(files[name], np.asarray(x[:COMPARED])))
            except ToolError as error:
                found[tool][name] = {"error": str(error)}
    found["costs"] = {name: count_costs(files[name]) for name in ("w8a8_channel", "w8a8_shift", "w4a8_block")}
    return found


def main() -> int:
    """Run the tools, network by network, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toolchains", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--tools", nargs="+", default=[*JOBS], choices=JOBS)
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.tables_only:
        for network in arguments.networks:
            RESULTS.keep(network, RESULTS.read().get(network, {}) | measure(network, arguments.tools))
    toolchains_page.write(RESULTS.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
