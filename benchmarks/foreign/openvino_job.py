"""Run a ``.tflite`` file in OpenVINO: ``python openvino_job.py net.tflite inputs.npy outputs.npy`` prints JSON.

Needs ``openvino`` and numpy alone.
"""

import json
import sys
from collections import Counter

import numpy as np
import openvino


def main() -> None:
    """Compile for the CPU, run sample by sample, and count the nodes that it executes by type and precision."""
    file, inputs, outputs = sys.argv[1:]
    # Without the hint, what is left in float is bfloat16 on CPUs that have it.
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = np.stack([compiled([sample[None]])[0][0] for sample in np.load(inputs)])
    np.save(outputs, found)
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = Counter(f"{info['layerType'].astype(str)} {info['runtimePrecision'].astype(str)}" for info in infos)
    print(json.dumps({"version": openvino.get_version().split("-")[0], "nodes": dict(kinds)}))


if __name__ == "__main__":
    main()
