"""Bits by coding length against the same bits everywhere: ``python -m benchmarks.mixed [--networks ...]``.

Weights per channel, scales by the error of the layer's output, coordinate descent, bias correction, 8-bit activations,
256 samples; first and last layer at 8 bits. Finished cells are kept in ``benchmarks/results/mixed.json`` and are not
measured again. Uniform 4 bits are measured first; the parts are:

* ``average``: an average of 4 bits over the layers between, by the widths to choose from and by the distortion
  ``eps`` of the coding length;
* ``budget``: the bytes of the uniform file's packed weights as the budget.
"""

import sys

from benchmarks import mixed_page
from benchmarks.cells import HERE, Cell, Records, parse_arguments
from benchmarks.rounding_cells import BASE
from benchmarks.tables import PICTURES
from tfptq.config import MixedPrecision, Rounding

RESULTS = HERE / "results" / "mixed.json"
NETWORKS = ("resnet20", "mobilenetv2")
PARTS = ("average", "budget")
WIDTHS = ((2, 3, 4, 5, 6, 8), (3, 4, 5, 6))
#: The default of ``MixedPrecision`` first.
EPS = (0.1, 0.03, 0.3)
CONFIG = BASE.replace(weight_bits=4, rounding=Rounding("coordinate"))


def uniform(network: str) -> Cell:
    """The same bits everywhere."""
    return Cell(network, "4 bits", "coordinate", CONFIG)


def by_average(network: str) -> list[Cell]:
    """An average of 4 bits; the default settings first."""
    settings = [MixedPrecision(bits, average_bits=4.0, eps=eps) for eps in EPS for bits in WIDTHS]
    return [_cell(network, "4 bits on average", item) for item in settings]


def cells_of(part: str, network: str, records: Records) -> list[Cell]:
    """The cells of a part for a network; a budget is known once the uniform file is measured."""
    if part == "average":
        return by_average(network)
    budgets = [record["packed_bytes"] for _, record in records.found([uniform(network)])]
    settings = [MixedPrecision(bits, budget_bytes=budget) for budget in budgets for bits in WIDTHS]
    return [_cell(network, "bytes of 4 bits", item) for item in settings]


def _cell(network: str, goal: str, settings: MixedPrecision) -> Cell:
    widths = " ".join(map(str, settings.bits))
    config = CONFIG.replace(mixed_precision=settings)
    return Cell(network, f"{goal}, of {widths}, eps {settings.eps}", "coordinate", config)


def main() -> int:
    """Measure what is missing, write the tables. Exit code 1 if a measurement failed."""
    arguments = parse_arguments("benchmarks.mixed", __doc__, NETWORKS, PARTS)
    records, failed = Records(RESULTS), []
    for network in () if arguments.tables_only else arguments.networks:
        failed += records.measure(uniform(network))
        for part in arguments.parts:
            for cell in cells_of(part, network, records)[: arguments.cells]:
                failed += records.measure(cell)
    studies = []
    for network in NETWORKS:
        for first in records.found([uniform(network)]):
            parts = {part: records.found(cells_of(part, network, records)) for part in PARTS}
            studies.append(mixed_page.Study(network, first, parts))
    mixed_page.write(PICTURES, studies)
    for line in failed:
        print("failed:", line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
