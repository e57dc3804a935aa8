"""Measure cases in a process apart, and in a new one after each that died or took too long."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.survey.cases import all_cases
from benchmarks.survey.judge import Record, judge

#: What TensorFlow takes to be imported, at most.
_SECONDS_TO_START = 300


def measured(names: list[str], seconds: int) -> Iterator[tuple[str, Record]]:
    """Each name with its record, as they come."""
    context = multiprocessing.get_context("spawn")
    left = list(names)
    while left:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, left), daemon=True)
        process.start()
        there.close()
        here.poll(_SECONDS_TO_START)
        here.recv()
        while left:
            name = left.pop(0)
            try:
                record = here.recv() if here.poll(seconds) else {"unmeasured": f"more than {seconds} s"}
            except EOFError:
                record = {"crashed": True}
            yield name, record
            if "unmeasured" in record or "crashed" in record:
                break
        process.kill()
        process.join()


def _work(connection: Connection, names: list[str]) -> None:
    connection.send("started")
    cases = all_cases()
    for name in names:
        connection.send(_record(cases[name], name))


def _record(make: Any, name: str) -> Record:
    try:
        case = make()
    except Exception as error:  # whatever Keras raises
        return {"not_built": f"{type(error).__name__}: {error}"[:300]}
    return judge(case, narrow=name.startswith("applications."))
