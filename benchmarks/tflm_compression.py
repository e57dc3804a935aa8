"""Would TFLite Micro's compression pay below 4 bits? ``python -m benchmarks.tflm_compression``.

TFLite Micro can keep a kernel as indexes into lookup tables of int8 values, which a DECODE operator unpacks at run
time: ``b`` bits for each weight, and a table of ``2 ** b`` bytes for each output channel, since the kernels are
quantized per channel (tensorflow/lite/micro/compression: at most 7 bits, one table for each channel). Counted here are
the bytes of all kernels with it, beside INT4, without its code, its metadata and the memory that it unpacks into.
"""

import sys

from benchmarks import zoo
from benchmarks.cells import HERE
from benchmarks.tables import table, write_tables
from tfptq.layers import supports, weight_specs

PAGE = HERE.parent / "docs" / "benchmarks.md"
NETWORKS = ("kws01", "ic01", "vww01", "ad01", "resnet20")


def kernel_bytes(network: str) -> dict[str, int]:
    """Way to store the kernels -> bytes of all of them."""
    model = zoo.load(network, 1).keras_model
    shapes = [
        spec.view.view_shape for layer in model.layers if supports(layer) for spec in weight_specs(layer)
    ]  # outputs, inputs, taps
    weights = [outputs * inputs * taps for outputs, inputs, taps in shapes]
    found = {"INT8": sum(weights), "INT4": sum(-(-count // 2) for count in weights)}
    for bits in (3, 2):
        tables = [2**bits * outputs for outputs, _, _ in shapes]
        packed = [-(-bits * count // 8) for count in weights]
        found[f"{bits} bits, tables"] = sum(packed) + sum(tables)
        smaller = zip(packed, tables, weights, strict=True)
        found[f"the smaller of {bits} bits and INT4"] = sum(min(code + it, -(-n // 2)) for code, it, n in smaller)
    return found


def main() -> int:
    """Write the table."""
    found = {network: kernel_bytes(network) for network in NETWORKS}
    head = list(next(iter(found.values())))
    rows = [[network, *(f"{each[way]:,}" for way in head)] for network, each in found.items()]
    write_tables(PAGE, {"tflm_compression": table(["network", *head], rows)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
