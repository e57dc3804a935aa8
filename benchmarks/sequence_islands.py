"""Static transformers with islands in float: ``python -m benchmarks.sequence_islands [--models ...] [--latency]``.

The static file, the one of ``activations="auto"`` and the dynamic one, each judged by the distance of its outputs from
those of the float network on samples that calibration did not see. Records in
``benchmarks/results/sequence_islands.json`` are kept; remove the file to measure anew. ``--latency`` measures the time
of all files, also of those that have one, and wants a machine without other work.
"""

from collections.abc import Callable
from functools import partial

from benchmarks import measure, zoo
from benchmarks.converter import float_file
from benchmarks.records import Record, Records, measure_models
from benchmarks.sequence_models import Trained, random_encoder, text, vit
from benchmarks.sequences import fidelity, kept
from benchmarks.tables import met, table, write_tables
from tfptq.config import QuantizationConfig
from tfptq.quantization import quantize_keras_model

_STATIC = QuantizationConfig.from_preset("w8a8_channel")
FILES = {
    "`w8a8_channel`": _STATIC,
    '`w8a8_channel`, `activations="auto"`': _STATIC.replace(activations="auto"),
    "`w8_dynamic`": QuantizationConfig.from_preset("w8_dynamic"),
}
PLAIN, AUTO, _ = FILES
#: What islands have to reach where the plain file does not, and the latency that they may cost.
WANTED, MOST = 28.0, 1.15


def _of_zoo(name: str) -> Trained:
    network = zoo.load(name, evaluation_samples=500)
    x, labels = network.evaluation
    return Trained(network.keras_model, network.calibration, x, labels)


CONVOLUTIONS = ("ic01", "kws01", "vww01", "resnet20", "mobilenetv2")
MODELS: dict[str, Callable[[], Trained]] = {
    "vit": vit,
    "text": text,
    "random encoder": partial(random_encoder, after=False, spread=0.0),
    "random encoder, sums normalized": partial(random_encoder, after=True, spread=0.5),
    **{name: partial(_of_zoo, name) for name in CONVOLUTIONS},
}


def main() -> int:
    """Measure what is missing, and write the table."""
    write_tables({"islands": _table(measure_models("sequence_islands", __doc__, MODELS, _measure))})
    return 0


def _measure(model: str, records: Records, with_latency: bool) -> None:
    names = {name: f"{model}: {name}" for name in FILES}
    missing = [name for name, key in names.items() if key not in records.read()]
    if not missing and not with_latency:
        return
    trained = MODELS[model]()
    files = {name: kept(f"{model} {number}", partial(_file, trained, name)) for number, name in enumerate(FILES)}
    if missing:
        expected = measure.run(float_file(trained.model), trained.evaluation)
        for name in missing:
            found = measure.run(files[name], trained.evaluation)
            records.keep(names[name], {**fidelity(expected, found), "bytes": len(files[name])})
    if with_latency:
        for name in [name for name in FILES if name != PLAIN]:
            found = measure.latency(files[name], files[PLAIN], trained.evaluation, threads=1)
            records.keep(f"{names[name]}: latency", found)


def _file(trained: Trained, name: str) -> bytes:
    return quantize_keras_model(trained.model, trained.calibration, FILES[name], progress=False).tflite


def _table(records: dict[str, Record]) -> str:
    rows = []
    for model in MODELS:
        for name in FILES:
            record, time = records.get(f"{model}: {name}"), records.get(f"{model}: {name}: latency")
            if record is None:
                continue
            ratio = 1.0 if name == PLAIN else None if time is None else time["ratio"]
            reached = record["decibels"] >= WANTED and ratio is not None and ratio <= MOST
            good = met(reached) if name == AUTO and model not in CONVOLUTIONS else ""
            cells = [f"{record['decibels']:.1f}", f"{100 * record['agreement']:.1f}", f"{record['bytes']:,}"]
            rows.append([model, name, *cells, "" if ratio is None else f"{ratio:.2f}", good])
    wanted = f"{WANTED:.0f} dB at {MOST} times the latency"
    return table(["network", "file", "dB", "agreement, %", "bytes", "latency to plain static", wanted], rows)


if __name__ == "__main__":
    main()
