"""Run ``.tflite`` files in TFLite Micro (the package ``tflite-micro``): one thread, reference kernels."""

import numpy as np
from stock_runtimes import details, encoded, run_codes
from tflite_micro.python.tflite_micro import runtime

from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.segments import extract_segment

ARENA = 1 << 21


def run_micro(data, samples):
    """Codes of the only output for samples ``[N, ...]`` of real values, run one by one."""
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=ARENA)
    (detail,) = details(data)[0].values()
    found = []
    for sample in samples:
        interpreter.set_input(encoded(sample[None], detail), 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0))
    return np.concatenate(found)


def micro_differences(data, sample):
    """Largest difference of each operator from LiteRT's reference kernel, both fed with what that one gave before it.

    Args:
        data: file with one input, all of whose operators are integer.
        sample: real values ``[1, ...]``.

    Returns:
        (kind, steps of the output's grid) of each operator.
    """
    model, differences = TFLiteModel(data), []
    (source,) = model.subgraph.inputs
    (detail,) = details(data)[0].values()
    values = {model.name(source): encoded(sample, detail)}
    for position, operator in enumerate(model.operators):
        part = extract_segment(model, position, position + 1, operator.outputs)
        codes = {part.name(index): values[part.name(index)] for index in part.subgraph.inputs}
        (expected,) = run_codes(part.to_bytes(), codes, "REF", "litert")
        interpreter = runtime.Interpreter.from_bytes(part.to_bytes(), arena_size=ARENA)
        for number, index in enumerate(part.subgraph.inputs):
            interpreter.set_input(codes[part.name(index)], number)
        interpreter.invoke()
        steps = np.abs(interpreter.get_output(0).astype(np.int64) - expected.reshape(interpreter.get_output(0).shape))
        differences.append((model.operator_name(operator), int(steps.max())))
        values[model.name(operator.outputs[0])] = expected
    return differences


def operators(data):
    """Kinds of the operators of a file, in execution order."""
    model = TFLiteModel(data)
    return [model.operator_name(operator) for operator in model.operators]
