"""The integer executor against the stock reference kernels on trained networks: ``python -m benchmarks.npu``.

Each layer of a quantized file is given the stock interpreter's own input codes; the table says how many output codes
differ, and how many multiplications for rescaling an NPU pays for each output value.
"""

import argparse
import json
from pathlib import Path

import tfptq
from benchmarks import zoo
from tfptq import PerBlock, QuantizationConfig
from tfptq.npu import compare_with_stock

RESULTS = Path(__file__).resolve().parent / "results" / "npu.json"
_BLOCKS = QuantizationConfig(
    PerBlock(8, 8), weight_bits=4, weight_scale="max_abs", rounding="nearest", equalize=False, layout="int8"
)
CONFIGS = {
    "w8a8_shift": "w8a8_shift",
    "4-bit blocks, integer": _BLOCKS.replace(scaler="integer"),
    "4-bit blocks, shift": _BLOCKS.replace(scaler="shift"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.npu", description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=("kws01", "resnet20", "mobilenetv2"))
    models = parser.parse_args().models
    records = []
    print("| network | config | layers | output codes | differing | rescales per output |\n|---|---|---|---|---|---|")
    for name in models:
        network = zoo.load(name, calibration_samples=64, evaluation_samples=1)
        for label, config in CONFIGS.items():
            result = tfptq.quantize_keras_model(network.keras_model, network.calibration, config, progress=False)
            record = compare(result.tflite, network.evaluation[0][:1])
            records.append({"network": name, "config": label, **record})
            cells = (record["layers"], record["outputs"], record["differing"], f"{record['rescales_per_output']:.1f}")
            print(f"| {name} | {label} | {' | '.join(map(str, cells))} |", flush=True)
    RESULTS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def compare(tflite: bytes, sample) -> dict[str, float]:
    """Layers, output codes, differing codes and rescales per output value of a file on one sample."""
    comparisons = compare_with_stock(tflite, [sample])
    outputs = sum(item.run.output.size for item in comparisons)
    return {
        "layers": len(comparisons),
        "outputs": outputs,
        "differing": int(sum(item.mismatches for item in comparisons)),
        "rescales_per_output": sum(item.run.rescales for item in comparisons) / outputs,
    }


if __name__ == "__main__":
    main()
