"""Measure cases in a process apart, and in a new one after each that died, took too long, or is large."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection

from benchmarks.survey.case import MakeCase
from benchmarks.survey.cases import all_cases
from benchmarks.survey.judge import Record, behind, judge

#: Draws of weights and samples where the first one says that tfptq is behind.
DRAWS = 4
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
            if "unmeasured" in record or "crashed" in record or _is_large(name):
                break
        process.kill()
        process.join()


def _is_large(name: str) -> bool:
    """Whether TensorFlow keeps gigabytes of a case."""
    return name.startswith("applications.")


def _work(connection: Connection, names: list[str]) -> None:
    connection.send("started")
    cases = all_cases()
    for name in names:
        connection.send(_record(cases[name], name))


def _record(make: MakeCase, name: str) -> Record:
    """The record of a case; where tfptq is behind, more draws of weights and samples tell whether that is chance."""
    try:
        record = judge(make(0), narrow=_is_large(name))
        if behind(record) and not _is_large(name):
            record["draws"] = [judge(make(draw)) for draw in range(1, DRAWS)]
    except Exception as error:  # whatever Keras raises
        return {"not_built": f"{type(error).__name__}: {error}"[:300]}
    return record
