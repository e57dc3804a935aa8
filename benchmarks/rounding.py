"""What learned rounding does to 4-, 3- and 2-bit networks: ``python -m benchmarks.rounding [--parts ...]``.

8-bit activations, first and last layer at 8 bits, scales by the error of the layer's output, bias correction. Finished
cells are kept in ``benchmarks/results/rounding.json`` and are not measured again. The parts, the decisive ones first:

* ``presets``: the 4-bit presets as they are, and what they must reach;
* ``network``: `w4a8_channel` without equalization, and without rotation;
* ``methods``: nearest, coordinate descent, AdaRound and Attention Round, per channel;
* ``samples``: coordinate descent on 32 to 1024 samples: accuracy, time, memory;
* ``attention``: width and steps of Attention Round, one changed at a time, and AdaRound at equal cost;
* ``blocks``: the same methods with reordered blocks.
"""

import sys

from benchmarks import rounding_page
from benchmarks.cells import HERE, Records, parse_arguments
from benchmarks.rounding_cells import NETWORKS, PARTS, cells_of
from benchmarks.rounding_plot import write_bits_plot, write_samples_plot
from benchmarks.tables import PICTURES

RESULTS = HERE / "results" / "rounding.json"


def main() -> int:
    """Measure what is missing, write the tables. Exit code 1 if a measurement failed."""
    arguments = parse_arguments("benchmarks.rounding", __doc__, NETWORKS, PARTS)
    records, failed = Records(RESULTS), []
    for part in () if arguments.tables_only else arguments.parts:
        for network in arguments.networks:
            for cell in cells_of(part, network)[: arguments.cells]:
                failed += records.measure(cell)
    rounding_page.write(records)
    for network in ("resnet20", "mobilenetv2"):
        write_bits_plot(PICTURES / f"rounding_{network}.png", records.found(cells_of("methods", network)))
        write_samples_plot(PICTURES / f"samples_{network}.png", records.found(cells_of("samples", network)))
    for line in failed:
        print("failed:", line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
