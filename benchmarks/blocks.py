"""What granularity does to 4-bit networks: ``python -m benchmarks.blocks [--networks ...] [--tables-only]``.

Weights of 4 bits, nearest rounding, bias correction, 8-bit activations; first and last layer at 8 bits per channel.
Every cell has the same but for which weights share a scale. Finished cells are kept in
``benchmarks/results/blocks.json`` and are not measured again. The parts:

* ``grid``: block shapes, scales searched for the least squared error of the weights (``weight_scale="mse"``);
* ``searched``: the decisive shapes, scales searched for the least error of the layer's output (PTQ-SL);
* ``kinds`` and ``kinds_by_weights``: the kinds of block scale, searched as in ``searched`` or as in ``grid``, all in
  the layout ``inline``, which computes in float what the scales say, so that nothing but the scales differs;
* ``layouts``: bytes of the layouts, and whether they give the same answers.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import blocks_page, measure, worker, zoo
from benchmarks.tables import PICTURES
from tfptq import QuantizationConfig, quantize_keras_model
from tfptq.base.files import write_atomically
from tfptq.cli.sweep_cells import Cell, describe
from tfptq.cli.sweep_plot import write_plot
from tfptq.config import PerBlock, PerChannel, PerTensor

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "blocks.json"
BASE = QuantizationConfig(
    PerTensor(),
    scaler="float",
    weight_bits=4,
    weight_scale="mse",
    rounding="nearest",
    statistics_samples=None,
    equalize=False,
    layout="int8",
    name="custom",
)
PARTS = ("grid", "searched", "kinds", "kinds_by_weights", "layouts")
#: The shape of the presets.
PRESET = PerBlock(input_blocks=4)
SMALL = ("resnet20",)
NETWORKS = ("resnet20", "mobilenetv2", "resnet56")
KINDS = ("float", "integer", "shift")
_BLOCKS = Cell(PRESET, 4, "integer", True)
#: Name, family of equal answers, cell, layout.
LAYOUTS = (
    ("blocks, `int8`", "integer blocks", _BLOCKS, "int8"),
    ("blocks, `size`", "integer blocks", _BLOCKS, "size"),
    ("blocks, `inline`", "float blocks", _BLOCKS, "inline"),
    ("blocks, `composite`", "float blocks", _BLOCKS, "composite"),
    ("channels, `int8`", "channels", Cell(PerChannel()), "int8"),
    ("channels, `int4`", "channels", Cell(PerChannel()), "int4"),
)
RESOLVERS = ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")


def grid(network: str) -> list[Cell]:
    """The cells of a network; ResNet-20 has all."""
    counts = (2, 8, 16) if network in SMALL else (8,)
    sides = ((1, 4), (4, 4), (8, 8), (16, 16), (32, 32)) if network in SMALL else ((8, 8), (32, 32))
    shapes = [*(PerBlock(input_blocks=count) for count in counts), *(PerBlock(*side) for side in sides)]
    return decisive() + [Cell(shape, 4, "integer", move) for shape in shapes for move in (True, False)]


def decisive() -> list[Cell]:
    """The preset's shape, reordered or not, and what it must beat."""
    return [Cell(PRESET, 4, "integer", True), Cell(PerChannel()), Cell(PRESET, 4, "integer"), Cell(PerTensor())]


def cells_of(part: str, network: str) -> list[tuple[str, Cell, QuantizationConfig]]:
    """(name, cell, config) of what a part measures on a network."""
    base = BASE if part in ("grid", "kinds_by_weights") else BASE.replace(weight_scale="output")
    if part.startswith("kinds"):
        cells = {kind: Cell(PRESET, 4, kind, True) for kind in KINDS}
        base = base.replace(layout="inline")
    else:
        cells = {cell.name: cell for cell in (grid(network) if part == "grid" else decisive())}
    return [(name, cell, cell.config(base)) for name, cell in cells.items()]


def measure_cell(model: zoo.ZooModel, config: QuantizationConfig, cell: Cell) -> dict[str, Any]:
    """Quantize and judge one cell; ``peak_mib`` is that of the process so far."""
    network, calibration = model.keras_model, model.calibration  # read before the clock starts
    with measure.resources() as used:
        result = quantize_keras_model(network, calibration, config, seed=0, progress=False)
    record = describe(result, cell) | {key: used[key] for key in ("cpu_seconds", "peak_mib")}
    record |= {"samples": len(calibration), "steps": dict(result.report.seconds)}
    return record | worker.quality(model, measure.run(result.tflite, model.evaluation[0], threads=2))


def measure_layouts(model: zoo.ZooModel, samples: int = 16) -> dict[str, Any]:
    """Bytes of each layout, and whether layouts of the same weights give the same answers; all layers have 4 bits.

    ``same_resolver``: for each resolver the largest difference of an output from the first layout of its family under
    the same resolver; ``from_reference``: from that layout under the reference resolver; relative to the largest
    output.
    """
    x = model.evaluation[0][:samples]
    found: dict[str, Any] = {"converter": {"bytes": len(worker.made(model, worker.BASELINE))}}
    first: dict[str, dict[str, np.ndarray]] = {}
    for name, family, cell, layout in LAYOUTS:
        config = cell.config(BASE.replace(layout=layout, edge_bits=None))
        content = quantize_keras_model(model.keras_model, model.calibration, config, progress=False).tflite
        outputs = {resolver: measure.run(content, x, resolver=resolver) for resolver in RESOLVERS}
        references = first.setdefault(family, outputs)
        found[name] = {
            "bytes": len(content),
            "float_operators": measure.float_operators(content),
            "same_resolver": {key: _difference(references[key], outputs[key]) for key in RESOLVERS},
            "from_reference": {key: _difference(references["BUILTIN_REF"], outputs[key]) for key in RESOLVERS},
        }
    return found


def _difference(reference: np.ndarray, outputs: np.ndarray) -> float:
    return float(np.abs(reference - outputs).max() / np.abs(reference).max())


def main() -> int:
    """Measure what is missing, write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=zoo.ENTRIES, metavar="NETWORK")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, metavar="PART")
    parser.add_argument("--cells", type=int, help="only so many cells of each part, the decisive ones")
    parser.add_argument("--samples", type=int, default=256, help="calibration samples (default 256)")
    parser.add_argument("--tables-only", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    for network in () if arguments.tables_only else arguments.networks:
        model = zoo.load(network, arguments.samples)
        for part in arguments.parts:
            if part == "layouts":
                _once(network, part, "preset", partial(measure_layouts, model))
                continue
            for name, cell, config in cells_of(part, network)[: arguments.cells]:
                _once(network, part, name, partial(measure_cell, model, config, cell))
    blocks_page.write(_results())
    for network in SMALL:
        write_plot(PICTURES / f"blocks_{network}.png", list(_results()[network]["grid"].values()))
    return 0


def _once(network: str, part: str, name: str, job: Callable[[], dict[str, Any]]) -> None:
    """Do a job unless its record is there already, and keep the record at once."""
    if name in _results().get(network, {}).get(part, {}):
        return
    record = job()
    results = _results()  # read again: another run may have added to it meanwhile
    results.setdefault(network, {}).setdefault(part, {})[name] = record
    write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
    print(network, part, name, json.dumps(record), flush=True)


def _results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
