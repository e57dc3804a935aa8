"""Quantize one zoo network and judge the file: ``python -m benchmarks.cell_worker NETWORK SAMPLES CONFIG OUTPUT``.

It runs in a process of its own, so that times and peak memory are those of this file. CONFIG is the JSON text of a
``QuantizationConfig``; the record goes to OUTPUT as JSON.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure, worker, zoo
from tfptq import QuantizationConfig, quantize_keras_model
from tfptq.core.bit_assignment import packed_bytes
from tfptq.graph import canonicalise
from tfptq.pipeline.steps import kernel_views
from tfptq.prepare.bits import choose_bits, sensitivity_of_layers
from tfptq.prepare.decisions import pinned_config
from tfptq.prepare.layer_weights import weights_of_layers


def measure_cell(model: zoo.ZooModel, config: QuantizationConfig) -> dict[str, Any]:
    """Quantize, and judge the file in LiteRT.

    Args:
        model: network and data.
        config: how to quantize.

    Returns:
        The record, plain values for JSON: ``seconds``, ``cpu_seconds``, ``peak_mib`` of the process while it
        quantized (``start_mib`` of that, the network and the samples, were there before), ``steps`` with the seconds
        of each; accuracy as in ``worker.quality`` and ``float_accuracy``; mean ``weight_snr_db`` and
        ``layer_output_snr_db`` over all layers but the first and the last; sizes as in ``weight_sizes``.
    """
    network, calibration = model.keras_model, model.calibration  # read before the clock starts
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak that reading the samples had
    with measure.resources() as used:
        result = quantize_keras_model(network, calibration, config, seed=0, progress=False)
    inner = result.report.layers[1:-1]
    record = {"samples": len(calibration), "bytes": len(result.tflite), **used, "steps": dict(result.report.seconds)}
    record["weight_snr_db"] = _mean([layer.weight_snr_db for layer in inner])
    record["layer_output_snr_db"] = _mean([layer.output_snr_db for layer in inner if layer.output_snr_db is not None])
    record |= worker.quality(model, measure.run(result.tflite, model.evaluation[0], threads=2))
    record["float_accuracy"] = model.accuracy(worker.float_outputs(model))
    return record | weight_sizes(model, config)


def weight_sizes(model: zoo.ZooModel, config: QuantizationConfig) -> dict[str, Any]:
    """Bytes of the packed codes of all weights, without scales and biases; with mixed precision also its decisions.

    Returns:
        ``"packed_bytes"``, and ``"layers"``: one dictionary for each layer with the fields of ``LayerBits``.
    """
    canonical = canonicalise(model.keras_model)
    weights = weights_of_layers(canonical)
    pinned = pinned_config(config, weights)
    settled, decisions = choose_bits(pinned, weights.groups, sensitivity_of_layers(pinned, canonical, ()))
    sizes = [
        packed_bytes(view.size, settled.for_layer(layer).weight_bits)
        for (layer, _), view in kernel_views(canonical).items()
    ]
    layers = [{**vars(row), "bytes": row.bytes} for row in decisions]
    return {"packed_bytes": sum(sizes), **({"layers": layers} if layers else {})}


def _mean(values: list[float]) -> float:
    """Mean of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite)


if __name__ == "__main__":
    found = measure_cell(zoo.load(sys.argv[1], int(sys.argv[2])), QuantizationConfig.from_json(sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps(found), encoding="utf-8")
