"""Blocks against channels at equal flash: ``python -m benchmarks.flash [--networks ...] [--draws N]``.

Files of target ``npu`` have 4-bit codes in INT8. How many bytes of flash an NPU needs for them depends on how well its
compiler compresses the weights: Arm's ``vela``, for an Ethos-U55 tuned for size, says it. At equal flash the better
signal to noise wins. Finished files are kept in ``benchmarks/results/flash.json``.
"""

import argparse
import sys
from typing import Any

import numpy as np

from benchmarks import targets, vela
from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from tfptq import PerBlock, PerChannel, PerTensor, QuantizationConfig

RESULTS = Records("flash")
ACCELERATOR = "ethos-u55-128"
NETWORKS = ("kws01", "ic01", "resnet20", "mobilenetv2")
_CHANNEL = QuantizationConfig.from_preset("w4a8_channel").replace(target="npu")
_BLOCK = _CHANNEL.replace(granularity=PerBlock(input_blocks=4), reorder=True)
WAYS = {
    "4 bits per channel": _CHANNEL,
    "5 bits per channel": _CHANNEL.replace(weight_bits=5),
    "6 bits per channel": _CHANNEL.replace(weight_bits=6),
    "4 bits, one scale and a shift per channel": _CHANNEL.replace(granularity=PerTensor(), scaler="shift"),
    "4 bits, 4 input blocks, integers": _BLOCK.replace(scaler="integer"),
    "4 bits, 4 input blocks, shifts": _BLOCK.replace(scaler="shift"),
    "4 bits, 1 x 16 blocks, integers": _BLOCK.replace(granularity=PerBlock(1, 16), scaler="integer"),
    "4 bits, 1 x 16 blocks, shifts": _BLOCK.replace(granularity=PerBlock(1, 16), scaler="shift"),
    "8 bits per channel": _CHANNEL.replace(weight_bits=8, granularity=PerChannel()),
}


def page(records: dict[str, dict[str, Any]]) -> str:
    """The table."""
    rows = []
    for network in NETWORKS:
        for way in WAYS:
            draws = [record for name, record in records.items() if name.startswith(f"{network}: {way}: ")]
            if draws:
                columns = [[draw["encoded_weights"] / 1000 for draw in draws], [draw["snr_db"] for draw in draws]]
                agreement = [100 * draw["agreement"] for draw in draws]
                means = [f"{np.mean(columns[0]):.1f}", f"{np.mean(columns[1]):.1f}", f"{np.mean(agreement):.1f}"]
                rows.append([network, way, *means, str(len(draws))])
    return table(["network", "weights", "flash of the weights, kB", "dB", "agreement", "draws"], rows)


def main() -> int:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flash", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--draws", type=int, default=2)
    arguments = parser.parse_args()
    for network in arguments.networks:
        for draw in range(1, arguments.draws + 1):
            for way, config in WAYS.items():
                name = f"{network}: {way}: {draw}"
                if name not in RESULTS.read():
                    record = targets.measure_draw(network, config, draw, name.replace(": ", "_"))
                    content = targets.kept_file(name.replace(": ", "_")).read_bytes()
                    record |= vela.compile_file(content, ACCELERATOR)
                    RESULTS.keep(name, record)
    write_tables({"flash": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
