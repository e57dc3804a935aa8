"""Beside the converter on all of Keras: ``python -m benchmarks.survey [--only PART] [--seconds N]``.

Cases run in a process apart, one after the other; one that kills it or takes longer than ``--seconds`` has that in
place of numbers. Finished ones are kept in ``benchmarks/results/survey.json``.
"""

import argparse
import sys

from benchmarks.records import Records
from benchmarks.survey import page
from benchmarks.survey.apart import measured
from benchmarks.survey.cases import all_cases
from benchmarks.tables import write_tables

RESULTS = Records("survey")


def main() -> int:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.survey", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="part of the names of the cases to measure")
    parser.add_argument("--seconds", type=int, default=120, help="most time for a case (default 120)")
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    parser.add_argument("--tables-only", action="store_true", help="only write the tables")
    arguments = parser.parse_args()
    if not arguments.tables_only:
        known = RESULTS.read()
        chosen = [name for name in all_cases() if arguments.only in name]
        missing = [name for name in chosen if arguments.again or "unmeasured" in known.get(name, {"unmeasured": ""})]
        for name, record in measured(missing, arguments.seconds):
            RESULTS.keep(name, record)
    write_tables(page.tables(RESULTS.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
