"""Run ``.tflite`` files on the stock runtimes: tf.lite and LiteRT, with each of their operator resolvers."""

import ai_edge_litert.interpreter as litert
import numpy as np
import tensorflow as tf

from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.segments import extract_segment

#: runtime -> (interpreter, resolvers). AUTO has XNNPACK, BUILTIN the optimized kernels, REF the reference kernels.
RUNTIMES = {
    "tf.lite": (tf.lite.Interpreter, tf.lite.experimental.OpResolverType),
    "litert": (litert.Interpreter, litert.OpResolverType),
}
RESOLVERS = {"AUTO": "AUTO", "BUILTIN": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "REF": "BUILTIN_REF"}


def run(data, inputs, resolver="AUTO", runtime="litert"):
    """Run a batch through the signature of a file.

    ``inputs`` holds real values by input name; integer inputs get their codes. Integer outputs are codes.
    """
    interpreter, resolvers = RUNTIMES[runtime]
    options = {"experimental_op_resolver_type": getattr(resolvers, RESOLVERS[resolver])}
    runner = interpreter(model_content=data, **options).get_signature_runner()
    details = runner.get_input_details()
    codes = {name: encoded(values, details[name]) for name, values in inputs.items()}
    return {name: values.copy() for name, values in runner(**codes).items()}


def in_one_partition(data, shape):
    """Whether XNNPACK takes the whole graph of a file with one input at once, for an input of some shape.

    The interpreter lists all operators, also those that a delegate has taken. That it has taken all shows in there
    being one DELEGATE, which reads the input of the graph and writes its outputs.
    """
    interpreter = litert.Interpreter(model_content=data)
    (source,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(source["index"], shape)
    interpreter.allocate_tensors()
    delegates = [each for each in interpreter._get_ops_details() if each["op_name"] == "DELEGATE"]
    results = {detail["index"] for detail in interpreter.get_output_details()}
    return len(delegates) == 1 and source["index"] in delegates[0]["inputs"] and results == set(delegates[0]["outputs"])


def details(data):
    """(input details, output details) of the signature, each by name."""
    runner = litert.Interpreter(model_content=data).get_signature_runner()
    return runner.get_input_details(), runner.get_output_details()


def encoded(values, detail):
    """Real values as the type that an input has."""
    scale, zero_point = detail["quantization"]
    if scale == 0.0:
        return values
    limits = np.iinfo(detail["dtype"])
    with np.errstate(over="ignore"):  # masks go down to the least float32
        return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def decoded(values, detail):
    """What an output holds as real values."""
    scale, zero_point = detail["quantization"]
    if scale == 0.0:
        return values
    return ((values.astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32)


def run_decoded(data, inputs, resolver="AUTO", runtime="litert"):
    """As ``run``, with real values out."""
    outputs = details(data)[1]
    return {name: decoded(values, outputs[name]) for name, values in run(data, inputs, resolver, runtime).items()}


def signal_to_noise(expected, found):
    """Ratio in decibels."""
    noise = np.square(np.float64(expected) - found).sum()
    return 10 * np.log10(np.square(np.float64(expected)).sum() / noise) if noise else np.inf


def operator_differences(data, codes, resolver="AUTO", runtime="litert"):
    """Largest difference of each operator from LiteRT's reference kernel, both fed with what that one gave before it.

    Args:
        data: file with one input, all of whose operators are integer.
        codes: input of the file, a batch of its own type.
        resolver: key of ``RESOLVERS``.
        runtime: key of ``RUNTIMES``.

    Returns:
        "position name" of each operator -> steps of its output's grid.
    """
    model, differences = TFLiteModel(data), {}
    (source,) = model.subgraph.inputs
    values = {model.name(source): codes}
    for position, operator in enumerate(model.operators):
        part = extract_segment(model, position, position + 1, operator.outputs)
        inputs = {part.name(index): values[part.name(index)] for index in part.subgraph.inputs}
        expected = run_codes(part.to_bytes(), inputs, "REF", "litert")
        found = run_codes(part.to_bytes(), inputs, resolver, runtime)
        values.update(zip(map(model.name, operator.outputs), expected, strict=True))
        steps = max(np.abs(a.astype(np.int64) - b).max() for a, b in zip(expected, found, strict=True))
        differences[f"{position} {model.operator_name(operator)}"] = int(steps)
    return differences


def run_codes(data, inputs, resolver, runtime):
    interpreter, resolvers = RUNTIMES[runtime]
    runner = interpreter(model_content=data, experimental_op_resolver_type=getattr(resolvers, RESOLVERS[resolver]))
    sources = {detail["name"]: detail["index"] for detail in runner.get_input_details()}
    for name, values in inputs.items():
        runner.resize_tensor_input(sources[name], values.shape)
    runner.allocate_tensors()
    for name, values in inputs.items():
        runner.set_tensor(sources[name], values)
    runner.invoke()
    return [runner.get_tensor(detail["index"]) for detail in runner.get_output_details()]
