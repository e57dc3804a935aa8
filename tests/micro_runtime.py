"""Run ``.tflite`` files in TFLite Micro (the package ``tflite-micro``): one thread, reference kernels."""

import numpy as np
from tflite_micro.python.tflite_micro import runtime

from tfptq.tflite.model import TFLiteModel

ARENA = 1 << 21


def run_micro(data, samples):
    """Codes of the only output for samples ``[N, ...]`` of real values or codes, run one by one."""
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=ARENA)
    detail = interpreter.get_input_details(0)
    found = []
    for sample in samples:
        interpreter.set_input(_encoded(sample[None], detail), 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0))
    return np.concatenate(found)


def _encoded(values, detail):
    if values.dtype == detail["dtype"]:
        return values
    scale, zero_point = (detail["quantization_parameters"][name][0] for name in ("scales", "zero_points"))
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def operators(data):
    """Kinds of the operators of a file, in execution order."""
    model = TFLiteModel(data)
    return [model.operator_name(operator) for operator in model.operators]
