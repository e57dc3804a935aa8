"""Recurrent networks on integers beside the converter's float loop: ``python -m benchmarks.recurrent [--models ...]``.

Each file is judged by the distance of its logits from those of Keras, on samples that neither training nor calibration
saw. Records in ``benchmarks/results/recurrent.json`` are kept; remove the file to measure anew. ``--latency`` measures
times, which wants a quiet machine; without it those of the records stay.
"""

import keras
import numpy as np

from benchmarks import measure
from benchmarks.converter import float_file
from benchmarks.records import Record, Records, measure_models
from benchmarks.recurrent_models import MODELS, ROWS
from benchmarks.sequence_models import Trained
from benchmarks.tables import met, table, write_tables
from tfptq import QuantizationConfig
from tfptq.core.decibels import signal_to_noise
from tfptq.evaluation.runner import file_ends, to_codes
from tfptq.quantization import quantize_keras_model
from tfptq.tflite.micro import MicroInterpreter

CONFIG = QuantizationConfig(target="micro")
UNROLLED = CONFIG.replace(unroll_steps=ROWS)
#: Network -> how its recurrent layers are written -> config.
CASES = {
    "lstm": {"operator": CONFIG, "unrolled": UNROLLED},
    "stacked_lstm": {"operator": CONFIG, "unrolled": UNROLLED},
    "gru": {"unrolled": UNROLLED},
}


def main() -> int:
    """Measure what is missing, and write the table."""
    write_tables({"recurrent": _table(measure_models("recurrent", __doc__, MODELS, _measure))})
    return 0


def _measure(model: str, records: Records, with_latency: bool) -> None:
    missing = [case for case in CASES[model] if with_latency or f"{model}: {case}" not in records.read()]
    trained = MODELS[model]() if missing else None
    for case in missing:
        known = records.read().get(f"{model}: {case}", {})
        found = _measured(trained, CASES[model][case], with_latency)
        records.keep(f"{model}: {case}", {**known, **found})


def _measured(trained: Trained, config: QuantizationConfig, latency: bool) -> Record:
    loop = float_file(_for_one(trained.model))
    result = quantize_keras_model(trained.model, trained.calibration, config, progress=False)
    expected = trained.model.predict(trained.evaluation, verbose=0)
    reference = measure.run(result.tflite, trained.evaluation, resolver="BUILTIN_REF")
    micro = _in_micro(result.tflite, trained.evaluation)
    steps = np.abs(micro - reference) / file_ends(result.tflite).outputs[0].scale
    found = {
        "float_accuracy": trained.accuracy,
        "accuracy": float(np.mean(reference.argmax(axis=1) == trained.labels)),
        "agreement": float(np.mean(reference.argmax(axis=1) == expected.argmax(axis=1))),
        "decibels": signal_to_noise(expected, reference),
        "micro_decibels": signal_to_noise(expected, micro),
        "micro_steps": int(np.rint(steps.max())),
        "micro_equal": float(np.mean(steps < 0.5)),
        "loop_bytes": len(loop),
        "float_bytes": len(result.float_tflite),
        "bytes": len(result.tflite),
        "arena_bytes": MicroInterpreter(result.tflite).arena_bytes(),
    }
    if latency:
        files = {"latency": result.tflite, "float_latency": result.float_tflite}
        found |= {key: measure.latency(file, loop, trained.evaluation, 1) for key, file in files.items()}
    return found


def _for_one(model: keras.Model) -> keras.Model:
    """The same model for one sample at a time, which the converter's loops need."""
    inputs = keras.Input(batch_shape=(1, *model.inputs[0].shape[1:]), name=model.inputs[0].name)
    return keras.Model(inputs, model(inputs))


def _in_micro(content: bytes, x: np.ndarray) -> np.ndarray:
    """Outputs in TFLite Micro, float32 ``[N, ...]``."""
    ends, interpreter = file_ends(content), MicroInterpreter(content)
    output = ends.outputs[0]
    codes = [interpreter.run([sample[None]])[0] for sample in to_codes(x, ends.inputs[0])]
    return ((np.concatenate(codes).astype(np.float32) - output.zero_point) * output.scale).astype(np.float32)


def _table(records: dict[str, Record]) -> str:
    names = [(model, case, f"{model}: {case}") for model in MODELS for case in CASES[model]]
    rows = [[model, case, *_cells(records[name])] for model, case, name in names if name in records]
    columns = ["network", "layers as", "accuracy, %: float / int8", "dB", "bytes: float loop / int8", "ratio"]
    columns += ["codes of TFLite Micro as of LiteRT's reference kernels, %", "largest difference, codes"]
    columns += ["latency of int8 to the float loop", "of the float file of tfptq to it"]
    return table([*columns, "at least 30 dB, at most 0.35 of the bytes"], rows)


def _cells(record: Record) -> list[str]:
    ratio = record["bytes"] / record["loop_bytes"]
    good = min(record["decibels"], record["micro_decibels"]) >= 30 and ratio <= 0.35
    times = [f"{record[key]['ratio']:.2f}" if key in record else "" for key in ("latency", "float_latency")]
    return [
        f"{100 * record['float_accuracy']:.1f} / {100 * record['accuracy']:.1f}",
        f"{record['decibels']:.1f}",
        f"{record['loop_bytes']:,} / {record['bytes']:,}",
        f"{ratio:.2f}",
        f"{100 * record['micro_equal']:.1f}",
        f"{record['micro_steps']}",
        *times,
        met(good),
    ]


if __name__ == "__main__":
    main()
