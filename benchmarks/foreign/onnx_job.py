"""Turn a ``.tflite`` file into ONNX and run it: ``python onnx_job.py net.tflite inputs.npy outputs.npy`` prints JSON.

Needs ``tf2onnx``, ``onnxruntime`` and numpy alone.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main() -> None:
    """Convert, let the runtime optimize, run sample by sample, and count the nodes that it executes."""
    file, inputs, outputs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        converted, optimized = Path(folder) / "net.onnx", Path(folder) / "optimized.onnx"
        command = [sys.executable, "-m", "tf2onnx.convert", "--tflite", file, "--output", converted, "--opset", "18"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        session = onnxruntime.InferenceSession(str(converted), options, providers=["CPUExecutionProvider"])
        (name,) = [each.name for each in session.get_inputs()]
        found = np.stack([session.run(None, {name: sample[None]})[0][0] for sample in np.load(inputs)])
        np.save(outputs, found)
        nodes = Counter(node.op_type for node in onnx.load(str(optimized)).graph.node)
    versions = f"{version('tf2onnx')}, onnxruntime {onnxruntime.__version__}"
    print(json.dumps({"version": versions, "nodes": dict(nodes)}))


if __name__ == "__main__":
    main()
