"""A network quantized by tfptq and by the TFLite converter, both judged on samples that neither has seen."""

import time
import warnings
from collections import Counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfptq
from benchmarks.survey.case import Case, batches
from tfptq.core.decibels import signal_to_noise

W8 = tfptq.QuantizationConfig.from_preset("w8a8_channel")
#: Every kernel has 4 bits, whatever a target would make of it.
W4 = tfptq.QuantizationConfig.from_preset("w4a8_channel").replace(target="any", edge_bits=None, rounding="nearest")
#: What stands for no noise at all.
MOST_DB = 99.0

Record = dict[str, Any]


def judge(case: Case, narrow: bool = False) -> Record:
    """What became of a case: one entry for tfptq, one for the converter, and one for 4 bits if asked for."""
    expected = _expected(case)
    record = {"tfptq": _judged(lambda: _quantized(case, W8), case, expected)}
    record["converter"] = _judged(lambda: (_converted(case), {}), case, expected)
    if narrow:
        record["narrow"] = _judged(lambda: _quantized(case, W4), case, expected)
    return record


def difference(record: Record) -> float | None:
    """By how many dB tfptq is ahead of the converter, in the mean of the draws; None where one has no number."""
    found = []
    for draw in (record, *record.get("draws", [])):
        values = [draw.get(who, {}).get("db") for who in ("tfptq", "converter")]
        if None not in values:
            found.append(values[0] - values[1])
    return sum(found) / len(found) if found else None


def behind(record: Record) -> bool:
    """Whether tfptq is behind the converter by more than a decibel, or 2 % of values that are compared exactly."""
    found, equal = difference(record), [record[who].get("equal", 1.0) for who in ("tfptq", "converter")]
    return (found is not None and found < -1.0) or equal[0] < equal[1] - 0.02


def _judged(make: Any, case: Case, expected: list[np.ndarray]) -> Record:
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content, found = make()
    except Exception as error:  # whatever it raises
        return {"refused": f"{type(error).__name__}: {error}"[:600]}
    record = {"bytes": len(content), "seconds": round(time.perf_counter() - start, 1), **found}
    try:
        return record | _differences(expected, _run(content, case.held_out))
    except Exception as error:  # a file that no interpreter runs
        return record | {"broken": f"{type(error).__name__}: {error}"[:300]}


def _quantized(case: Case, config: tfptq.QuantizationConfig) -> tuple[bytes, Record]:
    samples = case.calibration if len(case.calibration) > 1 else next(iter(case.calibration.values()))
    result = tfptq.quantize(case.model, samples, config, progress=False)
    report = result.report
    return result.tflite, {
        "bits": dict(Counter(str(layer.bits) for layer in report.layers)),
        "float_operators": dict(Counter(f"{item.operator}: {item.reason}" for item in report.float_operators)),
        "skipped": [f"{layer.name} ({layer.type}): {layer.reason}" for layer in report.skipped],
        "findings": [str(finding)[:200] for finding in report.findings],
    }


def _converted(case: Case) -> bytes:
    """The converter's post-training quantization: int8 operators only, as users ask for it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(case.model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        {name: values[at : at + 1] for name, values in case.calibration.items()}
        for at in range(len(next(iter(case.calibration.values()))))
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def _expected(case: Case) -> list[np.ndarray]:
    """Outputs of the float network ``[N, ...]``, one sample at a time: some functions mix those of a batch."""
    runs = (case.model(feeds, training=False) for feeds in batches(case.held_out, case.model))
    rows = [[np.asarray(it) for it in keras.tree.flatten(found)] for found in runs]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def _run(content: bytes, samples: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The same of a file, in the order of its outputs' names (``output_0``, ``output_1``, ...)."""
    runner = Interpreter(model_content=content).get_signature_runner()
    own, rows = list(runner.get_input_details()), []
    names = dict(zip(samples, own, strict=True)) if len(own) == 1 else {}  # whatever a single input is called
    for at in range(len(next(iter(samples.values())))):
        found = runner(**{names.get(name, name): values[at : at + 1] for name, values in samples.items()})
        rows.append([found[name].copy() for name in sorted(found, key=lambda it: (len(it), it))])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def _differences(expected: list[np.ndarray], found: list[np.ndarray]) -> Record:
    """The worst output in dB, or the share of equal values of indices and truth values; and what is constant."""
    ratios, shares, constant = [], [], []
    for at, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        got = got.reshape(wanted.shape)
        if np.issubdtype(wanted.dtype, np.floating):
            ratios.append(max(-MOST_DB, min(MOST_DB, signal_to_noise(wanted, got.astype(np.float64)))))
        else:
            shares.append(float(np.mean(wanted == got)))
        if np.ptp(np.asarray(wanted, np.float64)) > 0 and np.ptp(np.asarray(got, np.float64)) == 0:
            constant.append(at)
    record: Record = {"db": round(min(ratios), 1) if ratios else None}
    if shares:
        record["equal"] = round(min(shares), 3)
    return record | ({"constant": constant} if constant else {})
