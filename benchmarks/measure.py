"""Run ``.tflite`` files and measure what they give: outputs, float operators, speed, memory."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from tfptq.evaluation.latency import interleaved_milliseconds, timed
from tfptq.evaluation.runner import FileRunner, file_ends, to_codes

_BOUNDARY = ("QUANTIZE", "DEQUANTIZE")
_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def open_interpreter(
    content: bytes,
    runtime: str = "litert",
    resolver: str = "AUTO",
    threads: int = 1,
    preserve_all_tensors: bool = False,
):
    """Interpreter with its tensors allocated.

    Args:
        content: the ``.tflite`` file.
        runtime: ``"litert"`` or ``"tf.lite"`` (TensorFlow's own build).
        resolver: name of an ``OpResolverType``.
        threads: how many threads it may use.
        preserve_all_tensors: keep the values of all tensors, not of the outputs alone.

    Raises:
        ValueError: unknown runtime.
    """
    if runtime == "litert":
        make, resolvers = litert.Interpreter, litert.OpResolverType
    elif runtime == "tf.lite":
        import tensorflow as tf  # slow to import and not needed for LiteRT

        make, resolvers = tf.lite.Interpreter, tf.lite.experimental.OpResolverType
    else:
        raise ValueError(f"runtime is {runtime!r}; it must be litert or tf.lite")
    made = make(
        model_content=content,
        num_threads=threads,
        experimental_op_resolver_type=getattr(resolvers, resolver),
        experimental_preserve_all_tensors=preserve_all_tensors,
    )
    made.allocate_tensors()
    return made


def run(content: bytes, x: np.ndarray, **options) -> np.ndarray:
    """Outputs of a file with one input and one output, float32 [N, ...]; integer ends follow their grids.

    Args:
        content: the ``.tflite`` file, batch 1 or free.
        x: samples, float32 [N, ...].
        **options: for ``open_interpreter``.

    Raises:
        RuntimeError: the output of some sample is zero throughout, the mark of a kernel that computed nothing.
    """
    runner = FileRunner(open_interpreter(content, **options), file_ends(content))
    outputs = np.concatenate([runner.run([sample[None]])[0] for sample in x])
    zero = float(np.mean(~outputs.reshape(len(outputs), -1).any(axis=1)))
    if zero:
        raise RuntimeError(f"{zero:.1%} of the outputs are zero throughout ({options})")
    return outputs


def float_operators(content: bytes) -> dict[str, int]:
    """Operators that compute in float, by name; QUANTIZE and DEQUANTIZE are not counted."""
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    counts = Counter()
    for main in graph.subgraphs:
        for operator in main.operators:
            name = operator_name(graph, operator)
            types = {main.tensors[i].type for i in operator.outputs}
            if name not in _BOUNDARY and schema.TensorType.FLOAT32 in types:
                counts[name] += 1
    return dict(counts)


def computed_tensors(content: bytes) -> list[str]:
    """Names of the tensors that the first subgraph's operators make, in their order."""
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    main = graph.subgraphs[0]
    return [main.tensors[i].name.decode() for operator in main.operators for i in operator.outputs]


def operator_name(graph: schema.ModelT, operator: schema.OperatorT) -> str:
    """TFLite name of an operator, such as ``"CONV_2D"``."""
    code = graph.operatorCodes[operator.opcodeIndex]
    return _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]


def latency(content: bytes, baseline: bytes, x: np.ndarray, threads: int, seconds: float = 4.0) -> dict[str, float]:
    """Time of one inference against a baseline file's, in interleaved runs (A B, B A, ...) in this process.

    Args:
        content: the file.
        baseline: the file to compare with.
        x: samples, float32 [N, ...]; they are used in turn.
        threads: of both interpreters.
        seconds: how long to measure.

    Returns:
        ``"milliseconds"``, ``"baseline_milliseconds"`` (medians), ``"ratio"`` (of the medians), ``"runs"``.
    """
    invokes = [_timed_invoke(file, x, threads) for file in (content, baseline)]
    (ours, theirs), runs = interleaved_milliseconds(invokes, seconds, least_runs=20)
    return {"milliseconds": ours, "baseline_milliseconds": theirs, "ratio": ours / theirs, "runs": runs}


def _timed_invoke(content: bytes, x: np.ndarray, threads: int) -> Callable[[int], float]:
    codes = to_codes(x, file_ends(content).inputs[0])
    return timed(open_interpreter(content, threads=threads), [[sample[None]] for sample in codes])


@contextmanager
def resources() -> Iterator[dict[str, float]]:
    """Time and peak memory of the block.

    Yields:
        Dictionary that holds, after the block, ``"seconds"``, ``"cpu_seconds"`` (all threads of this process),
        ``"peak_mib"`` of the whole process in the block and ``"start_mib"`` before it. Linux only.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    found = {"start_mib": _memory_mib("VmRSS")}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found["seconds"] = time.perf_counter() - wall
    found["cpu_seconds"] = time.process_time() - cpu
    found["peak_mib"] = _memory_mib("VmHWM")


def _memory_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
