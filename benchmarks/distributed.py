"""What moves between machines: ``python -m benchmarks.distributed`` writes the tables of ``docs/distributed.md``.

Bytes alone, so that the machine need not be quiet. The network of ``examples/digits.py`` is quantized and evaluated on
one and on eight shards, here and in four processes. MobileNetV2 (random weights, one batch of noise) gives the sizes
that the estimate for many machines multiplies; they depend on the network and not on what it has learned.
"""

import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.records import Records
from benchmarks.tables import table, write_tables
from examples import digits
from tfptq import Calibration, distributed
from tfptq.config import resolve_config
from tfptq.distributed.quantization import DRAWN_SAMPLES, MeasureShard
from tfptq.fit.measure import MeasuredFile, measure
from tfptq.float_file.build import make_float_file
from tfptq.graph import canonicalise
from tfptq.pipeline.steps import kernel_views

RESULTS = Records("distributed")
PRESET, SHARDS, PROCESSES = "w4a8_channel", 8, 4
#: The estimate: samples, workers, and bytes of a float32 sample of MobileNetV2.
SAMPLES, WORKERS, SAMPLE_BYTES = 10**6, 1000, 4 * 224 * 224 * 3


def sizes(model: keras.Model) -> dict[str, Any]:
    """Bytes of what goes to a worker and of what comes back, and what these consist of."""
    canonical = canonicalise(model)
    file = MeasuredFile.of(make_float_file(canonical, kernel_views(canonical)))
    (spec,) = canonical.inputs
    noise = np.random.default_rng(0).normal(size=(2, *spec.shape[1:])).astype(np.float32)
    found = measure(file, [{spec.name: noise}], Calibration())
    twice = measure(file, [{spec.name: noise}, {spec.name: noise}], Calibration())
    return {
        "float_file": len(file.data),
        "function": len(pickle.dumps(MeasureShard(file, (), 32, False, Calibration()))),
        "measurements": len(pickle.dumps(found)),
        "of_more_samples": len(pickle.dumps(twice)),
        "tensors": len(found.tensors),
        "most_bins": 8 * sum(it.bins for it in found.tensors.values()),
        "kernel_inputs": 8 * sum(it.total.size for it in found.sums.values()),
    }


def runs() -> dict[str, Any]:
    """Quantize and evaluate in one process and in several."""
    x, x_test, y, y_test = digits.load_data()
    keras.utils.set_random_seed(0)
    model = digits.build_model()
    digits.train(model, x, y)
    with tempfile.TemporaryDirectory() as folder:
        one, eight = (_written(Path(folder) / str(parts), x[:1024], None, parts) for parts in (1, SHARDS))
        test = _written(Path(folder) / "test", x_test, y_test, SHARDS)
        plain = distributed.quantize(model, one, PRESET, progress=False)
        expected = distributed.evaluate(plain, test, progress=False)
        record: dict[str, Any] = {"samples": 1024, "sample_bytes": x[:1].nbytes, "test_samples": len(x_test)}
        for workers in (1, PROCESSES):
            with distributed.Processes(workers) as runner:
                result = distributed.quantize(model, eight, PRESET, runner=runner, progress=False)
                moved = {"sent": runner.sent, "received": runner.received, "same_file": result.tflite == plain.tflite}
                found = distributed.evaluate(result, test, runner=runner, progress=False)
                judged = {"evaluation_sent": runner.sent - moved["sent"]}
                judged["evaluation_received"] = runner.received - moved["received"]
                start = time.perf_counter()  # the processes run now
                distributed.quantize(model, eight, PRESET, runner=runner, progress=False)
                quantized = time.perf_counter()
                distributed.evaluate(result, test, runner=runner, progress=False)
                seconds = {"seconds": quantized - start, "evaluation_seconds": time.perf_counter() - quantized}
            record[str(workers)] = moved | judged | seconds | {"same_score": found.score == expected.score}
    return record


def _written(folder: Path, x: np.ndarray, y: np.ndarray | None, parts: int) -> Path:
    """A folder of shards."""
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(x)), parts)):
        labels = {} if y is None else {"labels": y[rows]}
        np.savez(folder / f"{number}.npz", x=x[rows], **labels)
    return folder


def page(records: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The tables."""
    rows = [
        [title, *(f"{records[name][key]:,}" for key in ("float_file", "tensors", "measurements", "of_more_samples"))]
        for name, title in (("digits", "`examples/digits.py`, 8 x 8"), ("mobilenetv2", "MobileNetV2, 224 x 224"))
    ]
    head = ["network", "float file, bytes", "tensors measured", "sums of 2 samples, bytes", "sums of 4 samples, bytes"]
    return {
        "distributed_sizes": table(head, rows),
        "distributed_runs": _runs_table(records["runs"]),
        "distributed_estimate": _estimate(records["mobilenetv2"]),
    }


def _runs_table(record: dict[str, Any]) -> str:
    head = ["", "1 process", f"{PROCESSES} processes"]
    columns = [record["1"], record[str(PROCESSES)]]
    bytes_rows = {
        "calibration: bytes to the processes": "sent",
        "calibration: bytes back": "received",
        "evaluation: bytes to the processes": "evaluation_sent",
        "evaluation: bytes back": "evaluation_received",
    }
    rows = [[title, *(f"{column[key]:,}" for column in columns)] for title, key in bytes_rows.items()]
    times = {"quantizing once the processes run, s": "seconds", "evaluation then, s": "evaluation_seconds"}
    rows += [[title, *(f"{column[key]:.1f}" for column in columns)] for title, key in times.items()]
    rows += [
        [title, *("yes" if column[key] else "**no**" for column in columns)]
        for title, key in {"the file of one shard": "same_file", "the accuracy of one pass": "same_score"}.items()
    ]
    return table(head, rows)


def _estimate(record: dict[str, Any]) -> str:
    drawn = resolve_config(PRESET).statistics_samples or DRAWN_SAMPLES
    out, back = record["function"], record["most_bins"] + record["kernel_inputs"]
    rows = [
        ["samples, read by the workers from their storage", "read in each pass", SAMPLES * SAMPLE_BYTES, "samples"],
        ["float file, to each worker in each of 2 passes", "2 x float file x workers", 2 * out * WORKERS, "workers"],
        ["sums, back from each worker in each of 2 passes", "2 x sums x workers", 2 * back * WORKERS, "workers"],
        ["drawn samples, to the calling process", f"{drawn} x sample", drawn * SAMPLE_BYTES, "neither"],
    ]
    cells = [[what, how, size(amount), size(amount // WORKERS), grows] for what, how, amount, grows in rows[:3]]
    cells += [[what, how, size(amount), "", grows] for what, how, amount, grows in rows[3:]]
    return table(["what", "how much", "in all", "a worker", "grows with"], cells)


def size(amount: int) -> str:
    """Bytes in a unit that people read."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if amount >= unit:
            return f"{amount / unit:.3g} {name}"
    return f"{amount} B"


def main() -> None:
    """Measure and write the tables."""
    keras.utils.set_random_seed(0)
    RESULTS.keep("digits", sizes(digits.build_model()))
    RESULTS.keep("mobilenetv2", sizes(keras.applications.MobileNetV2(weights=None)))
    RESULTS.keep("runs", runs())
    write_tables(page(RESULTS.read()))


if __name__ == "__main__":
    main()
