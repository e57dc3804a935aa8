"""Time and memory of quantizing beside the TFLite converter: ``python -m benchmarks.speed [--networks ...]``.

The default preset and the converter's int8 post-training quantization, each in a process of its own, on the same
samples; the converter is called as its guide says, one sample at a time. Run it on a quiet machine. Records in
``benchmarks/results/speed.json`` are kept; remove the file to measure anew.

A second table has the default preset and 4 bits on more and more samples of a generator.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np

from benchmarks import measure, zoo
from benchmarks.cells import HERE
from benchmarks.methods import METHODS
from benchmarks.records import Record, Records
from benchmarks.tables import met, table, write_tables
from tfptq import QuantizationConfig, quantize_keras_model

RESULTS = Records("speed")
SAMPLES = 256
#: Ours, the peer, and the peer without quantization, which is the floor of both.
WAYS = ("w8a8_shift", "converter", "float")
_ZOO = ("kws01", "vww01", "ic01", "ad01", "resnet20", "resnet56", "mobilenetv2")


def _application(name: str) -> Callable[[], keras.Model]:
    return lambda: getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3), classes=100)


def _transformer() -> keras.Model:
    """A vision transformer of six layers."""
    layers = keras.layers
    inputs = keras.Input((224, 224, 3))
    x = layers.Reshape((196, 192))(layers.Conv2D(192, 16, 16)(inputs))
    for _ in range(6):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(3, 64)(y, y)])
        y = layers.Dense(768, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(192)(y)])
    return keras.Model(inputs, layers.Dense(100)(layers.GlobalAveragePooling1D()(x)))


#: Network of random weights, whose time is that of a trained one -> what makes it.
_UNTRAINED = {
    "ResNet50 at 224": _application("ResNet50"),
    "EfficientNetB0 at 224": _application("EfficientNetB0"),
    "vision transformer, 6 layers": _transformer,
}
NETWORKS = (*_ZOO, *_UNTRAINED)


def measure_way(network: str, way: str) -> Record:
    """Quantize in this process; plain values for JSON."""
    if network in _UNTRAINED:
        keras.utils.set_random_seed(0)
        model = _UNTRAINED[network]()
        coarse = np.random.default_rng(0).uniform(0, 255, size=(SAMPLES, 14, 14, 3)).astype(np.float32)
        samples = coarse.repeat(16, axis=1).repeat(16, axis=2)
    else:
        entry = zoo.load(network, calibration_samples=SAMPLES)
        model, samples = entry.keras_model, entry.calibration
    with measure.resources() as used:
        content, _ = METHODS[way](model, samples)
    return {**used, "bytes": len(content), "samples": len(samples)}


#: Numbers of samples that a generator gives, and presets for these.
COUNTS, COUNTED = (1_000, 10_000, 100_000), ("w8a8_shift", "w4a8_channel")
#: Samples that layer statistics are taken from, where a preset would take all.
_STATISTICS = 1_000


def measure_samples(preset: str, count: int) -> Record:
    """Quantize a small network on samples that are made as they are read."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = inputs
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        x = layers.Conv2D(filters, 3, strides, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))

    def samples():
        random = np.random.default_rng(0)
        for _ in range(count // 100):
            yield random.normal(size=(100, 32, 32, 3)).astype(np.float32)

    config = QuantizationConfig.from_preset(preset)
    if config.statistics_samples is None:
        config = config.replace(statistics_samples=_STATISTICS)
    with measure.resources() as used:
        result = quantize_keras_model(model, samples, config, progress=False)
    seconds = result.report.seconds
    return {**used, "calibrate": seconds["calibrate"], "fit": seconds["fit"]}


def samples_page(records: dict[str, Record]) -> str:
    """One row for each preset and number of samples."""
    rows = []
    for preset in COUNTED:
        for count in COUNTS:
            record = records.get(f"{preset}, {count} samples")
            if record is not None:
                times = (f"{record[key]:.1f}" for key in ("calibrate", "fit", "seconds"))
                rows.append([f"`{preset}`", f"{count:,}", *times, f"{record['peak_mib']:,.0f}"])
    return table(["preset", "samples", "measuring activations, s", "fitting weights, s", "in all, s", "MiB"], rows)


def page(records: dict[str, Record]) -> str:
    """One row for each network."""
    rows, ratios = [], []
    for network in NETWORKS:
        if any(f"{network}, {way}" not in records for way in WAYS):
            continue
        ours, theirs, floor = (records[f"{network}, {way}"] for way in WAYS)
        ratio, cpu = (ours[key] / theirs[key] for key in ("seconds", "cpu_seconds"))
        memory = ours["peak_mib"] / theirs["peak_mib"]
        ratios.append(ratio)
        seconds = (f"{it['seconds']:.1f}" for it in (floor, theirs, ours))
        within = met(ratio <= 1.5 and memory <= 1.3)
        peaks = (f"{it['peak_mib']:,.0f}" for it in (theirs, ours))
        rows.append([network, *seconds, f"{ratio:.2f}", f"{cpu:.2f}", *peaks, f"{memory:.2f}", within])
    mean = float(np.mean(ratios)) if ratios else np.nan
    rows.append(["mean", "", "", "", f"{mean:.2f}", "", "", "", "", met(mean <= 1.0)])
    times = ["converter in float, s", "converter int8, s", "`w8a8_shift`, s", "ratio", "CPU ratio"]
    return table(["network", *times, "MiB, converter", "MiB, ours", "ratio", "within 1.5 and 1.3"], rows)


def main() -> int:
    """Measure what is missing, each in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, way = arguments.one
        print(json.dumps(measure_samples(name, int(way)) if way.isdigit() else measure_way(name, way)))
        return 0
    jobs = {f"{network}, {way}": (network, way) for network in arguments.networks for way in WAYS}
    jobs |= {f"{preset}, {count} samples": (preset, str(count)) for preset in COUNTED for count in COUNTS}
    for name, job in jobs.items() if not arguments.tables_only else ():
        if name not in RESULTS.read():
            command = [sys.executable, "-m", "benchmarks.speed", "--one", *job]
            quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, cwd=HERE.parent, env=quiet, capture_output=True, check=True, text=True)
            RESULTS.keep(name, json.loads(done.stdout.strip().splitlines()[-1]))
    write_tables({"speed": page(RESULTS.read()), "speed_samples": samples_page(RESULTS.read())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
