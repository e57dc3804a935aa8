"""Show that a change of the code changes no result: files, simulations and reports of all presets, by digest.

    python -m benchmarks.identity --write before.json     # on the one checkout
    python -m benchmarks.identity --write after.json      # on the other one
    python -m benchmarks.identity --compare before.json after.json

A result has five parts, so that a change on purpose of one of them hides no other: ``file`` (all of the ``.tflite``
but the block metadata), ``blocks`` (the tensors that the metadata describes), ``config`` (its JSON), ``simulation``
(weights of the Keras model) and ``report`` (without times and without the size of the file, which counts the metadata).
"""

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

import tfptq
from benchmarks import zoo
from tfptq.tflite import metadata
from tfptq.tflite.model import TFLiteModel

SAMPLES = 32
#: Networks of the zoo that take minutes at 4 bits: these presets stand for all.
FEW_PRESETS = ("w8a8_shift", "w4a8_channel", "w4a8_block")
LARGE = ("mobilenetv2", "resnet56")
#: Fields of the report that say how long it took, or count bytes of the metadata.
NOT_COMPARED = ("seconds", "file_bytes", "preset")


def small_networks() -> dict[str, Callable[[], keras.Model]]:
    """Networks with random weights that have what layers and operators differ by."""
    return {"mobile": _mobile, "attention": _attention, "shared": _shared, "mlp": _mlp}


def _mobile() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    x = layers.Add()([x, layers.Conv2D(16, 1)(y)])
    x = layers.SeparableConv2D(32, 3, activation="relu")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, activation="swish")(x)
    x = layers.Concatenate()([x, layers.UpSampling2D()(layers.MaxPooling2D()(x))])
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x)), name="mobile")


def _attention() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((12, 16), name="tokens")
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 8)(inputs, inputs)])
    x = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.Dense(16)(layers.Dense(32, activation="gelu")(x))])
    x = layers.Conv1D(12, 3, padding="causal", dilation_rate=2, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)), name="attention")


def _shared() -> keras.Model:
    layers = keras.layers
    left, right = keras.Input((8, 8, 2), name="left"), keras.Input((8, 8, 2), name="right")
    tower, head = layers.Conv2D(8, 3, activation="relu"), layers.Dense(6)
    both = [head(layers.Flatten()(tower(side))) for side in (left, right)]
    outputs = {"distance": layers.Subtract()(both), "class": layers.Dense(2, activation="sigmoid")(both[0])}
    return keras.Model({"left": left, "right": right}, outputs, name="shared")


def _mlp() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((20,)), layers.Dense(40), layers.PReLU(), layers.Dense(24, activation="relu"), layers.Dense(4)],
        name="mlp",
    )


def jobs(networks: list[str]) -> Iterator[tuple[str, str, keras.Model, dict | np.ndarray]]:
    """(network, preset, model, samples) of everything that is compared."""
    small = small_networks()
    for name in networks or [*small, *zoo.ENTRIES]:
        if name in small:
            keras.utils.clear_session()
            keras.utils.set_random_seed(1)
            model, rng = small[name](), np.random.default_rng(0)
            samples = {
                tensor.name: rng.normal(size=(SAMPLES, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs
            }
            data = samples if len(samples) > 1 else next(iter(samples.values()))
        else:
            entry = zoo.load(name, calibration_samples=SAMPLES)
            model, data = entry.keras_model, entry.calibration[: 16 * SAMPLES if entry.metric == "auc" else SAMPLES]
        large = any(name.startswith(prefix) for prefix in LARGE)
        for preset in FEW_PRESETS if large else tfptq.PRESETS:
            yield name, preset, model, data


def digests(result: tfptq.QuantizationResult) -> dict[str, str]:
    """Part of a result -> digest; the config as it is."""
    described = metadata.read(result.tflite)
    report = {key: value for key, value in json.loads(result.report.to_json()).items() if key not in NOT_COMPARED}
    return {
        "file": _digest(_without_metadata(result.tflite)),
        "blocks": _digest(*(_tensor(blocks) for blocks in described.tensors)),
        "config": described.config,
        "simulation": _digest(*(np.asarray(weight).tobytes() for weight in result.keras_model.get_weights())),
        "report": _digest(json.dumps(report, sort_keys=True).encode()),
        "report_text": json.dumps(report, sort_keys=True),
    }


def _without_metadata(tflite: bytes) -> bytes:
    model = TFLiteModel(tflite)
    for entry in model.root.metadata or []:
        if entry.name in (metadata.METADATA_KEY, metadata.METADATA_KEY.encode()):
            model.root.buffers[entry.buffer].data = np.zeros(4, np.uint8)
    return model.to_bytes()


def _tensor(blocks) -> bytes:
    arrays = {"base": blocks.base.tobytes(), "factors": blocks.factors.tobytes()}
    fields = [
        blocks.subgraph,
        blocks.tensor,
        blocks.tensor_name,
        blocks.layer,
        blocks.bits,
        blocks.scale_kind,
        str(blocks.layout),
        blocks.shape,
        blocks.output_axis,
        blocks.input_axes,
        blocks.block_shape,
    ]
    return repr(fields).encode() + b"".join(name.encode() + data for name, data in sorted(arrays.items()))


def _digest(*parts: bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:16]


def write(path: Path, networks: list[str]) -> None:
    """Run all jobs, and keep what is there after each."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    for network, preset, model, data in jobs(networks):
        job = f"{network} {preset}"
        if job in found:
            continue
        with contextlib.redirect_stdout(sys.stderr):
            found[job] = digests(tfptq.quantize_keras_model(model, data, preset, progress=False))
        path.write_text(json.dumps(found, indent=1))
        print(job, found[job]["file"], flush=True)


def compare(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> int:
    """Print what differs; returns the number of results that do."""
    different = 0
    for job in before.keys() & after.keys():
        parts = [part for part in ("file", "blocks", "simulation", "report") if before[job][part] != after[job][part]]
        if parts:
            different += 1
            print(f"{job}: {', '.join(parts)} differ{_detail(before[job], after[job])}")
    left_out = len(before.keys() ^ after.keys())
    print(f"{len(before.keys() & after.keys())} results compared, {different} differ, {left_out} only on one side")
    return different


def _detail(before: dict[str, str], after: dict[str, str]) -> str:
    """Which fields of the report differ."""
    old, new = (json.loads(item["report_text"]) for item in (before, after))
    fields = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return f" (report: {', '.join(fields)})" if fields else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="run all jobs and keep their digests")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="FILE")
    parser.add_argument("networks", nargs="*", help="all by default")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write, arguments.networks)
    if arguments.compare:
        return min(compare(*(json.loads(path.read_text()) for path in arguments.compare)), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
