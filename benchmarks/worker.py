"""Measure one method on one zoo network: ``python -m benchmarks.worker MODEL METHOD SAMPLES OUTPUT``.

It runs in a process of its own, so that times and peak memory are the method's own. The record goes to OUTPUT as
JSON; the file itself stays in the cache, where later measurements find it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, peers, runtimes, zoo
from benchmarks.methods import METHODS
from tfptq.core.decibels import signal_to_noise

BASELINE = "converter"


def measure_method(model_name: str, method: str, samples: int) -> dict[str, Any]:
    """Quantize and measure.

    Args:
        model_name: key of ``zoo.ENTRIES``.
        method: key of ``METHODS``.
        samples: number of calibration samples, as far as there are that many.

    Returns:
        The record, plain values for JSON.
    """
    model = zoo.load(model_name, calibration_samples=samples)
    record, content = _quantize(model, method)
    outputs = measure.run(content, model.evaluation[0], threads=2)
    record |= quality(model, outputs)
    record["bytes"] = len(content)
    record["float_operators"] = measure.float_operators(content)
    record["analyzer_lines"] = peers.analyze(content).count("\n")
    if method != "float":
        record |= _against_baseline(model, content)
    return record


def quality(model: zoo.ZooModel, outputs: np.ndarray) -> dict[str, Any]:
    """Accuracy, agreement with the float network and signal to noise of outputs [N, ...] on the evaluation samples.

    ``"standard_error"`` is that of the difference in accuracy from the float network. For top-1 it follows from the
    samples that only one of the two gets right: ``sqrt(won + lost) / N``.
    """
    reference = float_outputs(model)
    found = {
        "evaluated": len(outputs),
        "accuracy": model.accuracy(outputs),
        "snr_db": signal_to_noise(reference, outputs),
    }
    if model.metric == "top1":
        labels = model.evaluation[1]
        ours, theirs = model.decisions(outputs), model.decisions(reference)
        found["agreement"] = float(np.mean(ours == theirs))
        found["standard_error"] = float(np.sqrt(np.sum((ours == labels) != (theirs == labels))) / len(labels))
    else:
        found["standard_error"] = _standard_error_of_curves(model, outputs, reference)
    return found


def _standard_error_of_curves(model: zoo.ZooModel, outputs: np.ndarray, reference: np.ndarray) -> float:
    """Deviation of the difference of two areas under the curve over 200 random draws of the clips (bootstrap)."""
    labels = model.evaluation[1]
    ours, theirs = model.clip_scores(outputs), model.clip_scores(reference)
    random = np.random.default_rng(0)
    draws = [random.integers(len(labels), size=len(labels)) for _ in range(200)]
    areas = [[zoo.area_under_curve(scores[draw], labels[draw]) for scores in (ours, theirs)] for draw in draws]
    return float(np.std(np.subtract(*np.transpose(areas))))


def _quantize(model: zoo.ZooModel, method: str) -> tuple[dict[str, Any], bytes]:
    network, calibration = model.keras_model, model.calibration  # read before the clock starts
    with measure.resources() as used:
        content, notes = METHODS[method](network, calibration)
    file_path(model, method).write_bytes(content)
    return {"samples": len(calibration), "quantizing": used, **notes}, content


def _against_baseline(model: zoo.ZooModel, content: bytes) -> dict[str, Any]:
    x = model.evaluation[0][:64]
    few = x[:8] if x[0].size > 100_000 else x  # the reference kernels are slow on large pictures
    tensors = peers.validate(made(model, "float"), content, few[:8])
    baseline = made(model, BASELINE)
    return {
        "runtime_lsb": runtimes.output_differences(content, few),
        "operator_lsb": runtimes.operator_differences(content, few[0]),
        "validate": {"tensors": len(tensors), "lowest_snr_db": min(tensors.items(), key=lambda item: item[1])},
        "latency": {str(threads): measure.latency(content, baseline, x, threads) for threads in (1, 2)},
    }


def float_outputs(model: zoo.ZooModel) -> np.ndarray:
    """Outputs of the float Keras network on the evaluation samples, kept in the cache."""
    x, _ = model.evaluation
    cached = zoo.cache_folder() / f"{model.name}_{len(x)}_float.npy"
    if not cached.exists():
        np.save(cached, model.keras_model.predict(x, batch_size=50 if x.ndim == 4 else 1024, verbose=0))
    return np.load(cached)


def file_path(model: zoo.ZooModel, method: str) -> Path:
    return zoo.cache_folder() / f"{model.name}_{model.calibration_samples}_{method}.tflite"


def made(model: zoo.ZooModel, method: str) -> bytes:
    """File of another method, from the cache or made now."""
    path = file_path(model, method)
    if not path.exists():
        path.write_bytes(METHODS[method](model.keras_model, model.calibration)[0])
    return path.read_bytes()


if __name__ == "__main__":
    found = measure_method(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps(found), encoding="utf-8")
