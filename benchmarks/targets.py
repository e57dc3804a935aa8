"""Presets of few bits on their targets: ``python -m benchmarks.targets [--networks ...] [--draws N]``.

Bytes and latency are those of the file beside the TFLite converter's int8 file of the same network, in one process with
interleaved runs; latency says nothing about target ``micro``. Accuracy, agreement with float and signal to noise are
means over draws of the calibration samples, with the standard error of the mean. Files of target ``micro`` are judged
in LiteRT, whose reference kernels give the same codes as TFLite Micro's (``tests/lowering/test_targets.py``).

Accuracy can be measured while the machine does other work, latency cannot: ``--latency`` measures that of all files
that lack it, once the machine is quiet.

Finished draws are kept in ``benchmarks/results/targets.json``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import converter, measure, zoo
from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from tfptq import QuantizationConfig, quantize_keras_model

RESULTS = Records("targets")
NETWORKS = ("kws01", "ic01", "vww01", "ad01", "resnet20", "resnet56", "mobilenetv2", "mobilenetv2_bn")
WAYS = (
    ("w4a8_channel", "cpu"),
    ("w4a8_mixed", "cpu"),
    ("w2_mixed", "cpu"),
    ("w4a8_channel", "micro"),
)
#: Calibration samples of a draw: three quarters of what there is where there are few, 256 elsewhere.
SAMPLES = {"vww01": 96, "kws01": 90, "ad01": 30}
#: Networks that are made for microcontrollers.
MICRO = ("kws01", "ic01", "vww01", "ad01", "resnet20")
#: Windows of the autoencoder, of all clips of a draw.
MOST_WINDOWS = 2048


def measure_draw(network: str, config: QuantizationConfig, draw: int, name: str) -> dict[str, Any]:
    """Quantize a network on one draw of samples, judge the file, and keep it under a name."""
    model = zoo.load(network, SAMPLES.get(network, 256), draw=draw)
    samples = model.calibration
    if len(samples) > MOST_WINDOWS:
        samples = samples[np.random.default_rng(draw).permutation(len(samples))[:MOST_WINDOWS]]
    with measure.resources() as used:
        content = quantize_keras_model(model.keras_model, samples, config, progress=False).tflite
    x, _ = model.evaluation
    expected = float_outputs(model)
    found = measure.run(content, x, threads=2)
    record = {
        "bytes": len(content),
        "seconds": used["seconds"],
        "float_accuracy": model.accuracy(expected),
        "accuracy": model.accuracy(found),
        "snr_db": float(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum())),
    }
    if model.metric == "top1":
        record["agreement"] = float(np.mean(model.decisions(expected) == model.decisions(found)))
    peer = converter_file(model, samples)
    record["peer_bytes"] = len(peer)
    kept_file(name).write_bytes(content)
    return record


def kept_file(name: str) -> Path:
    """The quantized file of a draw, kept in the cache so that its latency can be measured later."""
    return zoo.cache_folder() / f"targets_{name.replace(' ', '_')}.tflite"


def measure_latency(network: str, name: str) -> dict[str, float]:
    """Threads -> latency as a multiple of the converter's file, interleaved runs."""
    model = zoo.load(network, SAMPLES.get(network, 256))
    peer = converter_file(model, model.calibration)
    content, x = kept_file(name).read_bytes(), model.evaluation[0][:64]
    return {str(threads): measure.latency(content, peer, x, threads)["ratio"] for threads in (1, 2)}


def float_outputs(model: zoo.ZooModel) -> np.ndarray:
    """Outputs of the float network on the evaluation samples, kept in the cache."""
    path = zoo.cache_folder() / f"{model.name}_{len(model.evaluation[0])}_float.npy"
    if not path.exists():
        np.save(path, model.keras_model.predict(model.evaluation[0], batch_size=50, verbose=0))
    return np.load(path)


def converter_file(model: zoo.ZooModel, samples: np.ndarray) -> bytes:
    """The converter's int8 file of a network, kept in the cache."""
    path = zoo.cache_folder() / f"{model.name}_converter.tflite"
    if not path.exists():
        path.write_bytes(converter.converter_int8(model.keras_model, samples[:64]))
    return path.read_bytes()


def page(records: dict[str, dict[str, Any]]) -> str:
    """The table."""
    head = ["network", "preset", "target", "bytes", "of the converter's", "latency, 1 / 2 threads"]
    rows = []
    for network in NETWORKS:
        for preset, target in WAYS:
            draws = [record for name, record in records.items() if name.startswith(f"{network} {preset} {target} ")]
            if draws:
                rows.append([network, f"`{preset}`", f"`{target}`", *_cells(draws)])
    return table([*head, "below float", "agreement", "dB", "s", "draws"], rows)


def _cells(draws: list[dict[str, Any]]) -> list[str]:
    size = np.mean([draw["bytes"] for draw in draws])
    ratio = size / draws[0]["peer_bytes"]
    latency = [
        f"{np.median(found):.2f}"
        for threads in "12"
        if (found := [draw["latency"][threads] for draw in draws if "latency" in draw])
    ]
    return [
        f"{size:,.0f}",
        f"{ratio:.2f}",
        " / ".join(latency),
        mean_with_error([100 * (draw["float_accuracy"] - draw["accuracy"]) for draw in draws], 2),
        mean_with_error([100 * draw["agreement"] for draw in draws], 1) if "agreement" in draws[0] else "",
        mean_with_error([draw["snr_db"] for draw in draws], 1),
        f"{np.mean([draw['seconds'] for draw in draws]):.0f}",
        str(len(draws)),
    ]


def mean_with_error(values: list[float], digits: int) -> str:
    """Mean with the standard error of it, where there are several values."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"


def main() -> int:
    """Measure what is missing, draw by draw, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--presets", nargs="+", default=sorted({preset for preset, _ in WAYS}))
    parser.add_argument("--latency", action="store_true", help="measure latency only")
    parser.add_argument("--tables-only", action="store_true")
    arguments = parser.parse_args()
    if arguments.latency:
        for name, record in RESULTS.read().items():
            network, _, target, _ = name.split()
            if network in arguments.networks and target != "micro" and "latency" not in record:
                RESULTS.keep(name, {**record, "latency": measure_latency(network, name)})
        arguments.tables_only = True
    for draw in range(1, arguments.draws + 1) if not arguments.tables_only else ():
        for network in arguments.networks:
            for preset, target in WAYS:
                name = f"{network} {preset} {target} {draw}"
                left_out = preset not in arguments.presets or (target == "micro" and network not in MICRO)
                if left_out or name in RESULTS.read():
                    continue
                config = QuantizationConfig.from_preset(preset).replace(target=target)
                RESULTS.keep(name, measure_draw(network, config, draw, name))
    write_tables({"few_bits": page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
