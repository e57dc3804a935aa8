"""Does TFLite Micro's compression pay? ``python -m benchmarks.tflm_compression [--networks ...] [--draws N]``.

TFLite Micro can keep a kernel as indexes into a table of int8 values, which a DECODE operator unpacks at run time
(``tfptq.compress_for_micro``). Files of 4 and 3 bits with tables stand beside those of target ``micro``, which has INT4
convolutions and INT8 dense layers. Accuracy is that of the file before compression: that the outputs stay the same is
checked on some samples in TFLite Micro (package ``tflite-micro``), which also tells the bytes of its arena.

Finished draws are kept in ``benchmarks/results/tflm_compression.json``.
"""

import argparse
import os
import re
import sys
import tempfile
from typing import Any

import numpy as np

from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from benchmarks.targets import MICRO, kept_file, mean_with_error, measure_draw
from tfptq import QuantizationConfig, compress_for_micro

RESULTS = Records("tflm_compression")
#: Way to store the kernels -> (bits, target, whether tables follow).
WAYS = {
    "`micro`: INT4": (4, "micro", False),
    "4 bits, tables": (4, "npu", True),
    "3 bits, tables": (3, "npu", True),
}
#: Samples that TFLite Micro runs, and bytes that it may take for that.
SAMPLES, ARENA = 4, 1 << 22
#: Bytes of the operator DECODE, which reads tables, Huffman codes and sparse kernels of all types: its five files of
#: 2026-08 (tensorflow/lite/micro/kernels/decode*.cc) by arm-none-eabi-g++ 12.2, -Os -mcpu=cortex-m4 -DNDEBUG.
CODE = 6_288


def measure(network: str, way: str, draw: int) -> dict[str, Any]:
    """Quantize a network, judge the file, compress it where asked, and run it in TFLite Micro."""
    bits, target, with_tables = WAYS[way]
    config = QuantizationConfig.from_preset("w4a8_channel").replace(weight_bits=bits, target=target)
    name = f"tables {network} {bits} {target} {draw}"
    record = measure_draw(network, config, draw, name)
    plain = kept_file(name).read_bytes()
    file = compress_for_micro(plain) if with_tables else plain
    found, arena = run_micro(file)
    expected, _ = run_micro(plain)
    if not np.array_equal(found, expected):
        raise RuntimeError(f"{name}: TFLite Micro computes something else after compression")
    return {**record, "uncompressed": len(plain), "bytes": len(file), "arena": arena}


def run_micro(file: bytes) -> tuple[np.ndarray, int]:
    """Codes of random inputs' outputs in TFLite Micro, and the bytes of its arena."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(file, arena_size=ARENA)
    shape = interpreter.get_input_details(0)["shape"]
    samples = np.random.default_rng(0).integers(-128, 128, (SAMPLES, *shape)).astype(np.int8)
    outputs = []
    for sample in samples:
        interpreter.set_input(sample, 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).copy())
    return np.stack(outputs), _arena(interpreter)


def _arena(interpreter) -> int:
    """The total of the arena, which the interpreter only prints, to the standard error of the process."""
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        log.seek(0)
        return int(re.search(rb"allocation total (\d+)", log.read()).group(1))


def page(records: dict[str, dict[str, Any]]) -> str:
    """The table."""
    head = ["network", "weights", "bytes", "with DECODE's code", "of INT4", "arena", "below float", "agreement", "dB"]
    rows = []
    for network in MICRO:
        flash = {}
        for way in WAYS:
            draws = [record for name, record in records.items() if name.startswith(f"{network}, {way}, ")]
            if not draws:
                continue
            size = np.mean([draw["bytes"] for draw in draws])
            flash[way] = size + CODE * WAYS[way][2]
            of_int4 = flash[way] / flash[next(iter(WAYS))]
            rows.append([network, way, f"{size:,.0f}", f"{flash[way]:,.0f}", f"{of_int4:.2f}", *_judged(draws)])
    return table([*head, "draws"], rows)


def _judged(draws: list[dict[str, Any]]) -> list[str]:
    return [
        f"{np.mean([draw['arena'] for draw in draws]):,.0f}",
        mean_with_error([100 * (draw["float_accuracy"] - draw["accuracy"]) for draw in draws], 2),
        mean_with_error([100 * draw["agreement"] for draw in draws], 1) if "agreement" in draws[0] else "",
        mean_with_error([draw["snr_db"] for draw in draws], 1),
        str(len(draws)),
    ]


def main() -> int:
    """Measure what is missing, draw by draw, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tflm_compression", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=MICRO, choices=MICRO)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    for draw in range(1, arguments.draws + 1) if not arguments.tables_only else ():
        for network in arguments.networks:
            for way in WAYS:
                name = f"{network}, {way}, {draw}"
                if name not in RESULTS.read():
                    record = measure(network, way, draw)
                    RESULTS.keep(name, record)
    write_tables({"tflm_compression": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
