"""Functions in float beside lookup tables, in files that are equal otherwise: ``python -m benchmarks.function_tables``.

tfptq has no integer rule for EXP, LOG, SQRT and RSQRT, for which LiteRT has int8 kernels. Here they get one, for this
measurement alone. Networks and samples are those of the survey.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean

from benchmarks.records import Record, Records
from benchmarks.survey.cases import all_cases
from benchmarks.survey.judge import judge
from benchmarks.survey.sequence_structures import FUNCTIONS
from benchmarks.tables import table, write_tables
from tfptq.ops.operator_spec import OutputGrid
from tfptq.ops.table import OPERATORS

DRAWS = 4
RESULTS = Records("function_tables")
#: Networks with such functions in several places.
SEVERAL = ("exponential", "stack of mish", "stack of softplus", "stack of selu", "detector, sigmoid and exp")
_TABLES = ("EXP", "LOG", "SQRT", "RSQRT")


def main() -> int:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.function_tables", description=__doc__.split("\n")[0])
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    known = {} if parser.parse_args().again else RESULTS.read()
    for name in (*FUNCTIONS, *SEVERAL):
        for draw in range(DRAWS):
            if f"{name}, {draw}" not in known:
                RESULTS.keep(f"{name}, {draw}", _measure(name, draw))
    write_tables({"survey_functions": _page(RESULTS.read())})
    return 0


def _measure(name: str, draw: int) -> Record:
    case = all_cases()[f"structures.{name}"](draw)
    record = judge(case)
    with _as_tables():
        return record | {"tables": judge(case)["tfptq"]}


@contextmanager
def _as_tables() -> Iterator[None]:
    rows = {name: OPERATORS[name] for name in _TABLES}
    OPERATORS.update(
        {name: replace(row, output_grid=OutputGrid.OWN, int8=2, exact_near_zero=()) for name, row in rows.items()}
    )
    try:
        yield
    finally:
        OPERATORS.update(rows)


def _page(records: Mapping[str, Record]) -> str:
    heads = ["mean of four draws", "in float, dB", "as a table, dB", "difference", "converter, dB", "bytes as a table"]
    rows = []
    for name in (*FUNCTIONS, *SEVERAL):
        draws = [records[f"{name}, {draw}"] for draw in range(DRAWS)]
        floats, tables, converter = ([it[who]["db"] for it in draws] for who in ("tfptq", "tables", "converter"))
        sizes = mean(it["tables"]["bytes"] / it["tfptq"]["bytes"] for it in draws)
        difference = mean(tables) - mean(floats)
        cells = [f"{mean(floats):.1f}", f"{mean(tables):.1f}", f"{difference:+.1f}", f"{mean(converter):.1f}"]
        rows.append([name, *cells, f"{sizes:.2f}"])
    return table(heads, rows)


if __name__ == "__main__":
    sys.exit(main())
