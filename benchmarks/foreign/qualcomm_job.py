"""Compile a ``.tflite`` file for a Qualcomm NPU: ``python qualcomm_job.py net.tflite`` prints JSON.

Needs ``ai-edge-litert`` and ``ai-edge-litert-sdk-qualcomm`` with the SDK that this downloads.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import ai_edge_litert_sdk_qualcomm
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.aot import aot_compile
from ai_edge_litert.aot.vendors.qualcomm import target

SOC = target.SocModel.SM8650


def main() -> None:
    """Compile, and count what is left beside the partitions."""
    if not (Path(ai_edge_litert_sdk_qualcomm.__file__).parent / "data").is_dir():
        sys.exit("its package did not download the SDK when it was installed")
    result = aot_compile.aot_compile(sys.argv[1], target=[target.Target(SOC)], keep_going=True)
    if result.failed_backends:
        _, reason = result.failed_backends[0]
        sys.exit(str(reason))
    (compiled,) = [model for _, model in result.models_with_backend]
    model = schema.ModelT.InitFromPackedBuf(bytes(compiled.model_bytes), 0)
    operators = model.subgraphs[0].operators
    partitions = sum(bool(model.operatorCodes[operator.opcodeIndex].customCode) for operator in operators)
    left = len(operators) - partitions
    print(json.dumps({"version": version("ai-edge-litert-sdk-qualcomm"), "partitions": partitions, "left": left}))


if __name__ == "__main__":
    main()
