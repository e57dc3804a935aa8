"""Measure what layouts cost: ``python -m benchmarks.layout_costs [--target cpu|web] [--tables ...]``.

Each point is a file with a few equal layers side by side, in INT8 and in each layout, with XNNPACK and one thread: of
LiteRT for ``cpu``, of LiteRT.js in headless Chromium for ``web`` (``make web`` installs it). The files of a point take
turns, and the least time of each counts, so that other work on the machine shows little. The tables lie in
``tfptq/tflite/cost_tables``; one is written as soon as it is complete, and the others stay as they are.
"""

import argparse
import datetime
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.layer_files import TABLES, Table, float_file, in_layout
from benchmarks.web.litert_js import open_litert_js
from tfptq.tflite.layouts import INT8, layout_named

FOLDER = Path(__file__).resolve().parent.parent / "tfptq" / "tflite" / "cost_tables"
#: Time that one file of one point is run for, in seconds, and how often at least.
SECONDS, LEAST_RUNS = 0.1, 12
#: Multiply-accumulates from which on a file has one layer, and no copies.
MANY = 2e6
#: Layers that a file in the browser has beside the one that is not counted, at most.
MOST_COPIES = 64

#: Times of one run of files, in seconds; the files take turns.
TakesTurns = Callable[[Mapping[str, bytes]], Mapping[str, float]]
#: Input channels, output channels and positions of the output.
Point = tuple[int, int, int]


@dataclass(frozen=True)
class Runtime:
    """What runs the files.

    Attributes:
        least_seconds: times of files.
        versions: of what runs them.
        beside: count what layers take beside one that is there anyway, for runtimes whose calls take as long as small
            layers. Files then have float ends, and a single value of each layer leaves them.
    """

    least_seconds: TakesTurns
    versions: Mapping[str, str]
    beside: bool = False

    def counts(self, table: Table, point: Point) -> tuple[int, int]:
        """Layers in the smaller file, 0 for none, and in the larger one."""
        inputs, outputs, positions = point  # a depthwise layer has one input channel
        work = inputs * outputs * positions * table.side**2
        if self.beside:
            return 1, 1 + int(np.clip(MANY // work, 1, MOST_COPIES))
        return 0, 4 if work < MANY else 1

    def file(self, table: Table, point: Point, count: int, layout: str) -> bytes:
        """A file of so many layers."""
        data = float_file(table, *point, count, joined=self.beside)
        return in_layout(data, layout_named(layout), "float32" if self.beside else "int8")

    def seconds(self, table: Table, point: Point) -> dict[str, float]:
        """Name of a layout and number of layers -> time of the file."""
        files = {
            f"{name} {count}": self.file(table, point, count, name)
            for name in (INT8.name, *table.layouts)
            for count in self.counts(table, point)
            if count
        }
        return dict(self.least_seconds(files))

    def layer(self, table: Table, point: Point, layout: str, seconds: Mapping[str, float]) -> float:
        """Microseconds of one layer."""
        few, many = self.counts(table, point)
        return 1e6 * (seconds[f"{layout} {many}"] - seconds.get(f"{layout} {few}", 0.0)) / (many - few)


def least_seconds(files: Mapping[str, bytes]) -> dict[str, float]:
    """Times in LiteRT in this process."""
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


def measure_table(table: Table, runtime: Runtime, passes: int) -> dict:
    """All points of a table, as they stand in the file; of several passes the least time of each file counts."""
    points = list(itertools.product(table.inputs, table.outputs, table.positions))
    seconds: dict[Point, dict[str, float]] = {point: {} for point in points}
    for number in range(passes):
        for point in points:
            found = runtime.seconds(table, point)
            seconds[point] = {name: min(value, seconds[point].get(name, value)) for name, value in found.items()}
        print(f"pass {number + 1}", flush=True)
    times = {
        name: np.array([runtime.layer(table, point, name, seconds[point]) for point in points])
        for name in (INT8.name, *table.layouts)
    }
    ratios = {name: times[name] / times[INT8.name] for name in table.layouts}
    for at, point in enumerate(points):
        shown = ", ".join(f"{name} {values[at]:.2f}" for name, values in ratios.items())
        print("{:5d} {:5d} {:5d}".format(*point), f"{times[INT8.name][at]:9.2f} us  {shown}", flush=True)
    if table.operator == "FULLY_CONNECTED":
        ratios["int4"] = ratios["fully_connected_int4"]  # the same operator
    return {
        "operator": table.operator,
        "taps": table.side**2,
        "stride": table.stride,
        "inputs": table.inputs,
        "outputs": table.outputs,
        "positions": table.positions,
        "microseconds": _rounded(times[INT8.name]),
        "ratios": {name: _rounded(values) for name, values in ratios.items()},
    }


def _rounded(values: np.ndarray) -> list:
    return [float(f"{value:.3g}") for value in values]


@contextmanager
def _runtime(target: str) -> Iterator[Runtime]:
    """What runs files for a target."""
    if target == "cpu":
        yield Runtime(least_seconds, {"litert": version("ai-edge-litert")})
        return
    with open_litert_js() as litert_js:
        yield Runtime(litert_js.seconds, litert_js.versions, beside=True)


def main() -> int:
    """Measure, and write table by table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layout_costs", description=__doc__.split("\n")[0])
    parser.add_argument("--target", default="cpu", choices=("cpu", "web"))
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES, metavar="TABLE")
    parser.add_argument("--passes", type=int, default=1, help="more of them where the machine does other work")
    arguments = parser.parse_args()
    found = read_table_file(arguments.target)
    with _runtime(arguments.target) as runtime:
        for name in arguments.tables:
            print(name)
            made = {**machine_and_date(), **runtime.versions}
            found["tables"][name] = {**made, **measure_table(TABLES[name], runtime, arguments.passes)}
            write_table_file(arguments.target, found)
    return 0


def read_table_file(target: str) -> dict:
    """What was measured for a target so far."""
    path = FOLDER / f"{target}.json"
    return json.loads(path.read_text()) if path.exists() else {"tables": {}}


def write_table_file(target: str, found: dict) -> None:
    """Write what was measured, a line for each table."""
    FOLDER.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(table)}" for key, table in found["tables"].items())
    operators = f',\n"operators": {json.dumps(found["operators"])}' if "operators" in found else ""
    (FOLDER / f"{target}.json").write_text(f'{{"threads": 1, "tables": {{\n{lines}\n}}{operators}}}\n')


def machine_and_date() -> dict[str, str]:
    """For the head of a table."""
    return {"date": datetime.date.today().isoformat(), "machine": _machine()}


def _machine() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return f"{platform.machine()}, {line.split(':')[1].strip()}"
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
