"""Measure operators without weights on int8 and on float: ``python -m benchmarks.operator_costs [--passes 3]``.

Each kind is a file with copies of one operator side by side, on int8 and in float, with XNNPACK and one thread of
LiteRT; the least time of each file counts, so that other work on the machine shows little. What is written into
``tfptq/tflite/cost_tables/cpu.json`` is nanoseconds for a value of the largest tensor that the operator reads or writes
(of BATCH_MATMUL for a multiply-accumulate), which ``tfptq.lowering.islands`` compares.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from importlib.metadata import version

import tensorflow as tf

from benchmarks.layout_costs import least_seconds, machine_and_date, read_table_file, write_table_file
from tfptq.lowering.emit import emit
from tfptq.lowering.plan import plan_integers
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.operator_costs import values_of

#: Copies of an operator in the larger file; the smaller has one.
COPIES = 9
_ROWS, _MAP = (1, 128, 128), (1, 32, 32, 16)
Kind = tuple[Callable[..., tf.Tensor], list[tuple[int, ...]]]
#: Operator -> what the converter makes it of, and the shapes of its inputs.
KINDS: dict[str, Kind] = {
    "ADD": (tf.add, [_ROWS, _ROWS]),
    "SUB": (tf.subtract, [_ROWS, _ROWS]),
    "MUL": (tf.multiply, [_ROWS, _ROWS]),
    "SQUARED_DIFFERENCE": (tf.math.squared_difference, [_ROWS, _ROWS]),
    "MAXIMUM": (tf.maximum, [_ROWS, _ROWS]),
    "MINIMUM": (tf.minimum, [_ROWS, _ROWS]),
    "DIV": (tf.divide, [_ROWS, _ROWS]),
    "ABS": (tf.abs, [_ROWS]),
    "NEG": (tf.negative, [_ROWS]),
    "EXP": (tf.exp, [_ROWS]),
    "SQRT": (tf.sqrt, [_ROWS]),
    "RSQRT": (tf.math.rsqrt, [_ROWS]),
    "SQUARE": (tf.square, [_ROWS]),
    "RELU": (tf.nn.relu, [_ROWS]),
    "RELU6": (tf.nn.relu6, [_ROWS]),
    "LEAKY_RELU": (tf.nn.leaky_relu, [_ROWS]),
    "ELU": (tf.nn.elu, [_ROWS]),
    "HARD_SWISH": (lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0), [_ROWS]),
    "GELU": (lambda x: tf.nn.gelu(x, approximate=False), [_ROWS]),
    "LOGISTIC": (tf.sigmoid, [_ROWS]),
    "TANH": (tf.tanh, [_ROWS]),
    "SOFTMAX": (tf.nn.softmax, [_ROWS]),
    "LOG_SOFTMAX": (tf.nn.log_softmax, [_ROWS]),
    "L2_NORMALIZATION": (lambda x: tf.math.l2_normalize(x, axis=-1), [(128, 128)]),
    "MEAN": (lambda x: tf.reduce_mean(x, -1, keepdims=True), [_ROWS]),
    "SUM": (lambda x: tf.reduce_sum(x, -1, keepdims=True), [_ROWS]),
    "REDUCE_MAX": (lambda x: tf.reduce_max(x, -1, keepdims=True), [_ROWS]),
    "REDUCE_MIN": (lambda x: tf.reduce_min(x, -1, keepdims=True), [_ROWS]),
    "AVERAGE_POOL_2D": (lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), [_MAP]),
    "MAX_POOL_2D": (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), [_MAP]),
    "RESIZE_BILINEAR": (lambda x: tf.image.resize(x, (64, 64)), [_MAP]),
    "RESIZE_NEAREST_NEIGHBOR": (lambda x: tf.image.resize(x, (64, 64), "nearest"), [_MAP]),
    "CONCATENATION": (lambda x, y: tf.concat([x, y], -1), [_ROWS, _ROWS]),
    "PACK": (lambda x, y: tf.stack([x, y]), [_ROWS, _ROWS]),
    "RESHAPE": (lambda x: tf.reshape(x, (1, 128, 4, 32)), [_ROWS]),
    "TRANSPOSE": (lambda x: tf.transpose(x, (0, 2, 1, 3)), [(1, 128, 4, 32)]),
    "SLICE": (lambda x: tf.slice(x, (0, 1, 2), (1, 126, 124)), [_ROWS]),
    "STRIDED_SLICE": (lambda x: x[:, ::2], [_ROWS]),
    "SPLIT": (lambda x: tf.split(x, 2, -1), [_ROWS]),
    "PAD": (lambda x: tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), [_MAP]),
    "BROADCAST_TO": (lambda x: tf.broadcast_to(x, _ROWS), [(1, 1, 128)]),
    "BATCH_MATMUL": (tf.matmul, [(1, 4, 64, 32), (1, 4, 32, 64)]),
}


def float_file(kind: Kind) -> bytes:
    """A float file of one operator."""
    function, shapes = kind
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    traced = tf.function(function, input_signature=specs).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()


def int8_file(data: bytes) -> bytes | None:
    """The same on int8, from end to end; None where it has no such operator."""
    model = TFLiteModel(data)
    plan = plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)))
    if not plan.operators:
        return None
    return emit(data, plan, (), input_type="int8", output_type="int8").model.to_bytes()


def conversion_file() -> bytes:
    """A file that quantizes a float input, or one that dequantizes an int8 one."""
    data = float_file(KINDS["RELU"])
    model = TFLiteModel(data)
    plan = plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)))
    return emit(data, plan, ()).model.to_bytes()


def copies(data: bytes, name: str, count: int) -> bytes:
    """A file of so many copies of the operator of a kind, side by side, and nothing else.

    Raises:
        ValueError: the file has not got exactly one.
    """
    model = TFLiteModel(data)
    found = [operator for operator in model.operators if model.operator_name(operator) == name]
    if len(found) != 1:
        kinds = [model.operator_name(operator) for operator in model.operators]
        raise ValueError(f"the file for {name} has {kinds}")
    (operator,), graph = found, model.subgraph
    graph.inputs = [index for index in dict.fromkeys(operator.inputs) if index >= 0 and not model.is_constant(index)]
    graph.operators, graph.outputs = [], []
    for _ in range(count):
        made = copy.copy(operator)
        made.outputs = []
        for index in operator.outputs:
            model.tensors.append(copy.copy(model.tensors[index]))
            made.outputs.append(len(model.tensors) - 1)
        graph.operators.append(made)
        graph.outputs += made.outputs
    model.root.signatureDefs = None
    model.remove_unused()
    return model.to_bytes()


def measure(passes: int) -> dict[str, dict[str, float]]:
    """Operator -> ``"int8"`` and ``"float"`` -> nanoseconds for a value."""
    files: dict[str, dict[str, bytes]] = {}
    for name, kind in KINDS.items():
        data = float_file(kind)
        files[name] = {"float": data, "int8": int8_file(data)}
    files["QUANTIZE"] = files["DEQUANTIZE"] = {"float": conversion_file()}
    found: dict[str, dict[str, float]] = {}
    for name, each in files.items():
        found[name] = {}
        for key, data in each.items():
            if data is None:
                continue
            model = TFLiteModel(data)
            operator = next(it for it in model.operators if model.operator_name(it) == name)
            pair = {str(count): copies(data, name, count) for count in (1, COPIES)}
            seconds = [least_seconds(pair) for _ in range(passes)]
            few, many = (min(it[count] for it in seconds) for count in pair)
            nanoseconds = 1e9 * max(many - few, 0.0) / (COPIES - 1) / values_of(model, operator)
            found[name][key] = float(f"{nanoseconds:.3g}")
        print(name, found[name], flush=True)
    return found


def main() -> int:
    """Measure, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator_costs", description=__doc__.split("\n")[0])
    parser.add_argument("--passes", type=int, default=1, help="more of them where the machine does other work")
    arguments = parser.parse_args()
    found = read_table_file("cpu")
    made = {**machine_and_date(), "litert": version("ai-edge-litert")}
    found["operators"] = {**made, "nanoseconds": measure(arguments.passes)}
    write_table_file("cpu", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
