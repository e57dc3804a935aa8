"""Cells of a benchmark: one file each, quantized in a process of its own, judged, and kept at once.

A cell's record holds what was asked for. A cell counts as measured while that is the same; so a preset that changed
is measured again, and an interrupted run goes on where it stopped.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfptq.base.files import write_atomically
from tfptq.config import QuantizationConfig

HERE = Path(__file__).resolve().parent


def parse_arguments(
    program: str, description: str, networks: Sequence[str], parts: Sequence[str]
) -> argparse.Namespace:
    """Command line of a benchmark that is made of cells: which networks and parts, how many cells, tables only."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=networks, choices=networks, metavar="NETWORK")
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts, metavar="PART")
    parser.add_argument("--cells", type=int, help="only so many cells of each part and network, the first ones")
    parser.add_argument("--tables-only", action="store_true", help="only write the tables")
    return parser.parse_args()


@dataclass(frozen=True)
class Cell:
    """One file of a benchmark.

    Attributes:
        network: key of ``zoo.ENTRIES``.
        weights: what a table calls its widths and scales.
        rounding: what a table calls its rounding.
        config: how it is quantized.
        samples: calibration samples, as far as there are that many.
    """

    network: str
    weights: str
    rounding: str
    config: QuantizationConfig
    samples: int = 256

    @property
    def name(self) -> str:
        """Tells the cell from all others of its network."""
        return f"{self.weights}, {self.rounding}, {self.samples} samples"


class Records:
    """Records of measured cells in a JSON file: network -> name of the cell -> record.

    Args:
        path: the file; it need not be there yet.
    """

    def __init__(self, path: Path):
        self.path = path

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """Record of a cell, or None if it is yet to be measured."""
        record = self._read().get(cell.network, {}).get(cell.name)
        if record is None or QuantizationConfig.from_json(record["config"]) != cell.config:
            return None
        return record

    def found(self, cells: Iterable[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
        """The measured ones among some cells, with their records."""
        pairs = [(cell, self.find(cell)) for cell in cells]
        return [(cell, record) for cell, record in pairs if record is not None]

    def measure(self, cell: Cell) -> list[str]:
        """Measure a cell unless it is there already; its name comes back if that failed."""
        if self.find(cell) is not None:
            return []
        print(cell.network, cell.name, flush=True)
        try:
            record = in_own_process(cell)
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            return [f"{cell.network} {cell.name}"]
        results = self._read()  # read again: another run may have added to it meanwhile
        results.setdefault(cell.network, {})[cell.name] = record
        write_atomically(self.path, json.dumps(results, indent=1) + "\n")
        return []

    def _read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}


def in_own_process(cell: Cell) -> dict[str, Any]:
    """Measure a cell with ``benchmarks.cell_worker``, so that times and peak memory are its own.

    Raises:
        RuntimeError: the process failed; with the end of its output.
    """
    config = cell.config.to_json(indent=None)
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "record.json", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "benchmarks.cell_worker", cell.network, str(cell.samples), config, str(output)]
        with open(log, "wb") as sink:
            done = subprocess.run(command, stdout=sink, stderr=sink, cwd=HERE.parent, check=False)
        if done.returncode:
            tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"{cell.network} {cell.name}: exit code {done.returncode}\n{tail}")
        return {"config": config, **json.loads(output.read_text(encoding="utf-8"))}
