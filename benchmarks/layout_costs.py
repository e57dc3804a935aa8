"""Measure what layouts cost: ``python -m benchmarks.layout_costs [--tables ...]`` fills ``tfptq/tflite/cost_tables``.

Each point is a file with a few equal layers side by side, in INT8 and in each layout, on LiteRT with XNNPACK and one
thread. The files of a point take turns, and the least time of each counts, so that other work on the machine shows
little. A table is written as soon as it is complete; the others stay as they are.
"""

import argparse
import datetime
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfptq.config import PerChannel, QuantizationConfig
from tfptq.core.blocks import QuantizedWeight, float_scales
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.float_file.matching import operator_window
from tfptq.lowering.choose_layout import LayoutPlan, layout_request
from tfptq.lowering.emit import emit
from tfptq.lowering.plan import plan_integers
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel
from tfptq.tflite.layouts import INT8, Layout, layout_named
from tfptq.tflite.model import TFLiteModel

FOLDER = Path(__file__).resolve().parent.parent / "tfptq" / "tflite" / "cost_tables"
#: Time that one file of one point is run for, in seconds, and how often at least.
SECONDS, LEAST_RUNS = 0.1, 12
#: Multiply-accumulates from which on a file has one layer, and no copies.
MANY = 2e6


@dataclass(frozen=True)
class Table:
    """What is measured for one kind of operator.

    Attributes:
        operator: its kind.
        side: height and width of its kernel.
        stride: along both axes.
        inputs: input channels.
        outputs: output channels.
        positions: of the output; squares where there is an area.
        layouts: names of the layouts beside ``int8``.
    """

    operator: str
    side: int
    stride: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positions: tuple[int, ...]
    layouts: tuple[str, ...]


_PRODUCT, _GATHERED = ("fully_connected_int4", "fully_connected_int2"), ("im2col_int4", "im2col_int2")
_WIDE, _NARROW, _AREAS = (8, 32, 128, 512), (8, 32, 128, 256), (4, 49, 196, 784)
TABLES = {
    "dense": Table("FULLY_CONNECTED", 1, 1, (16, 64, 256, 1024), (16, 64, 256, 1024), (1, 16, 196), _PRODUCT),
    "pointwise": Table("CONV_2D", 1, 1, _WIDE, _WIDE, _AREAS, _PRODUCT),
    "pointwise_strided": Table("CONV_2D", 1, 2, _NARROW, _NARROW, (16, 196), _PRODUCT),
    "conv": Table("CONV_2D", 3, 1, _NARROW, _NARROW, (16, 196, 784), _GATHERED),
    "conv_strided": Table("CONV_2D", 3, 2, _NARROW, _NARROW, (16, 196), _GATHERED),
    "depthwise": Table("DEPTHWISE_CONV_2D", 3, 1, (1,), (8, 32, 128, 512), _AREAS, ()),
    "depthwise_strided": Table("DEPTHWISE_CONV_2D", 3, 2, (1,), (8, 32, 128, 512), (4, 49, 196), ()),
    "pointwise_int4": Table("CONV_2D", 1, 1, (8, 64, 256), (8, 64, 256), (16, 196), ("int4",)),
    "conv_int4": Table("CONV_2D", 3, 1, (8, 64), (8, 64), (16, 196), ("int4",)),
    "depthwise_int4": Table("DEPTHWISE_CONV_2D", 3, 1, (1,), (8, 64, 256), (16, 196), ("int4",)),
}


def float_file(table: Table, inputs: int, outputs: int, positions: int, copies: int) -> bytes:
    """A float file of equal layers that read one input."""
    depthwise, dense = table.operator == "DEPTHWISE_CONV_2D", table.operator == "FULLY_CONNECTED"
    size = math.isqrt(positions)
    area = ([positions] if positions > 1 else []) if dense else [size * table.stride] * 2
    out_area = area if dense else [size, size]
    shape = [outputs, inputs] if dense else [outputs, table.side, table.side, inputs]
    channels = outputs if depthwise else inputs
    shape = [1, table.side, table.side, outputs] if depthwise else shape
    graph = schema.SubGraphT(name="main", tensors=[], operators=[], inputs=[], outputs=[])
    root = schema.ModelT(version=3, subgraphs=[graph], buffers=[schema.BufferT()], operatorCodes=[], metadata=[])
    code = getattr(schema.BuiltinOperator, table.operator)
    root.operatorCodes.append(schema.OperatorCodeT(code, None, 1, code))
    rng = np.random.default_rng(0)

    def tensor(name: str, sizes: Sequence[int], values: np.ndarray | None = None) -> int:
        buffer = 0
        if values is not None:
            data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
            root.buffers.append(schema.BufferT(data=data))
            buffer = len(root.buffers) - 1
        kind = schema.TensorType.FLOAT32
        graph.tensors.append(schema.TensorT(name=name, shape=np.asarray(sizes, np.int32), type=kind, buffer=buffer))
        return len(graph.tensors) - 1

    graph.inputs = [tensor("x", [1, *area, channels])]
    for copy in range(copies):
        kernel = tensor(f"kernel_{copy}", shape, rng.normal(0, 1, shape))
        bias = tensor(f"bias_{copy}", [outputs], rng.normal(0, 1, outputs))
        result = tensor(f"y_{copy}", [1, *out_area, outputs])
        operator = schema.OperatorT(opcodeIndex=0, inputs=[graph.inputs[0], kernel, bias], outputs=[result])
        operator.builtinOptions = _options(table, len(area) > 0)
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(operator.builtinOptions).__name__[:-1])
        graph.operators.append(operator)
        graph.outputs.append(result)
    model = object.__new__(TFLiteModel)
    model.root = root
    return model.to_bytes()


def _options(table: Table, keep: bool):
    if table.operator == "FULLY_CONNECTED":
        return schema.FullyConnectedOptionsT(keepNumDims=keep)
    strides = {"strideW": table.stride, "strideH": table.stride}
    if table.operator == "DEPTHWISE_CONV_2D":
        return schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **strides)
    return schema.Conv2DOptionsT(**strides)


def in_layout(data: bytes, layout: Layout) -> bytes:
    """The file on integers, with random codes in a layout."""
    model = TFLiteModel(data)
    kernels = [_kernel(model, at, layout) for at in range(len(model.operators))]
    plan = plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)))
    return emit(data, plan, kernels, input_type="int8", output_type="int8").model.to_bytes()


def _kernel(model: TFLiteModel, at: int, layout: Layout) -> QuantizedKernel:
    operator = model.operators[at]
    kernel_at, bias_at, input_at = model.spec(operator).weights
    tensor, bias = operator.inputs[kernel_at], model.constant(operator.inputs[bias_at])
    view = model.spec(operator).kernel_view(model.shape(tensor))
    window = operator_window(model, operator)
    use = KernelUse(at, tensor, operator.inputs[input_at], operator.outputs[0], view, window, bias)
    kernel = Kernel(KernelId(None, model.name(tensor)), view.to_view(model.constant(tensor)), (use,))
    config = QuantizationConfig(PerChannel(), weight_bits=2, weight_scale="max_abs", rounding="nearest")
    problem = layout.obstacle(layout_request(config, model, use))
    if problem is not None:
        raise ValueError(f"{layout.name} at {view.view_shape}: {problem}")
    rng = np.random.default_rng(at)
    outputs, inputs, _ = view.view_shape
    scales = float_scales(rng.uniform(0.01, 0.02, (outputs, 1)).astype(np.float32), (1, inputs))
    weight = QuantizedWeight(rng.integers(-2, 2, view.view_shape).astype(np.int8), scales, 2)
    return QuantizedKernel.of(kernel, KernelPlan(config, LayoutPlan((layout,))), weight, np.zeros(outputs, np.float32))


def least_seconds(files: Mapping[str, bytes]) -> dict[str, float]:
    """Least time of one run of each file; the files take turns."""
    interpreters = {name: Interpreter(model_content=data, num_threads=1) for name, data in files.items()}
    least = dict.fromkeys(files, math.inf)
    for interpreter in interpreters.values():
        interpreter.allocate_tensors()
        interpreter.invoke()
    until, turns = time.perf_counter() + SECONDS * len(files), 0
    while turns < LEAST_RUNS or time.perf_counter() < until:
        for name, interpreter in interpreters.items():
            for _ in range(4 if least[name] < 1e-3 else 1):
                start = time.perf_counter()
                interpreter.invoke()
                least[name] = min(least[name], time.perf_counter() - start)
        turns += 1
    return least


def measure(table: Table) -> dict:
    """All points of a table, as they stand in the file."""
    shape = len(table.inputs), len(table.outputs), len(table.positions)
    microseconds, ratios = np.zeros(shape), {name: np.zeros(shape) for name in table.layouts}
    for place in itertools.product(*map(range, shape)):
        inputs, outputs, positions = table.inputs[place[0]], table.outputs[place[1]], table.positions[place[2]]
        copies = 4 if inputs * outputs * positions * table.side**2 < MANY else 1
        data = float_file(table, inputs, outputs, positions, copies)
        files = {name: in_layout(data, layout_named(name)) for name in (INT8.name, *table.layouts)}
        least = least_seconds(files)
        microseconds[place] = least[INT8.name] * 1e6 / copies
        for name in table.layouts:
            ratios[name][place] = least[name] / least[INT8.name]
        shown = ", ".join(f"{name} {ratios[name][place]:.2f}" for name in table.layouts)
        print(f"{inputs:5d} {outputs:5d} {positions:5d} {microseconds[place]:9.2f} us  {shown}", flush=True)
    if table.operator == "FULLY_CONNECTED":
        ratios["int4"] = ratios["fully_connected_int4"]  # the same operator
    return {
        "operator": table.operator,
        "taps": table.side**2,
        "stride": table.stride,
        "inputs": table.inputs,
        "outputs": table.outputs,
        "positions": table.positions,
        "microseconds": _rounded(microseconds),
        "ratios": {name: _rounded(values) for name, values in ratios.items()},
    }


def _rounded(values: np.ndarray) -> list:
    return [float(f"{value:.3g}") for value in values.reshape(-1)]


def main() -> int:
    """Measure, and write table by table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layout_costs", description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, metavar="TABLE")
    arguments = parser.parse_args()
    path = FOLDER / "cpu.json"
    found = json.loads(path.read_text()) if path.exists() else {"tables": {}}
    for name in arguments.tables:
        print(name)
        made = {"date": datetime.date.today().isoformat(), "machine": _machine(), "litert": version("ai-edge-litert")}
        found["tables"][name] = {**made, **measure(TABLES[name])}
        FOLDER.mkdir(exist_ok=True)
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(table)}" for key, table in found["tables"].items())
        path.write_text(f'{{"threads": 1, "tables": {{\n{lines}\n}}}}\n')
    return 0


def _machine() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return f"{platform.machine()}, {line.split(':')[1].strip()}"
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
