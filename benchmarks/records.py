"""Results that benchmarks keep as they come, so that a run that was cut off goes on where it was."""

import argparse
import json
from collections.abc import Callable, Collection
from typing import Any

from benchmarks.cells import HERE
from tfptq.base.files import write_atomically

Record = dict[str, Any]


class Records:
    """The file ``benchmarks/results/<name>.json``: name of a measurement -> what was found."""

    def __init__(self, name: str):
        self._path = HERE / "results" / f"{name}.json"

    def read(self) -> dict[str, Record]:
        """All that was measured."""
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}

    def keep(self, name: str, record: Record) -> None:
        """Add a measurement; the file is read again, since another run may have added to it."""
        write_atomically(self._path, json.dumps({**self.read(), name: record}, indent=1) + "\n")
        print(name, record, flush=True)


def measure_models(
    benchmark: str, description: str, models: Collection[str], measure: Callable[[str, Records, bool], None]
) -> dict[str, Record]:
    """The command line of a benchmark that measures models one after the other.

    Args:
        benchmark: name of its module, and of its records.
        description: its first line is the program's help.
        models: names of all models.
        measure: measures what the records of a model lack; its last argument tells whether to measure latency.

    Returns:
        All records.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=models, choices=models, metavar="MODEL")
    parser.add_argument("--latency", action="store_true", help="measure latency as well, on a quiet machine")
    parser.add_argument("--tables-only", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    records = Records(benchmark)
    for model in () if arguments.tables_only else arguments.models:
        measure(model, records, arguments.latency)
    return records.read()
