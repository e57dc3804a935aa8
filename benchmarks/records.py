"""Results that benchmarks keep as they come, so that a run that was cut off goes on where it was."""

import json
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
