"""Do all runtimes compute the same? Whole files, and each operator by itself.

Kernels may differ by one step of the 8-bit grid where they round differently. Along a network such steps add up, so
the difference of whole outputs says as much about the network as about the file. Hence the second measure: every
operator is cut out into a file of its own, fed with what LiteRT's reference kernels give it in the whole network, and
its outputs are compared with theirs.
"""

import copy

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks import measure
from tfptq.evaluation.runner import file_ends, to_codes

RUNTIMES = ("litert", "tf.lite")
RESOLVERS = ("AUTO", "BUILTIN", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")
_OPTIONS = {f"{runtime}/{resolver}": (runtime, resolver) for runtime in RUNTIMES for resolver in RESOLVERS}
_INTEGERS = (np.int8, np.int16, np.uint8)


def output_differences(content: bytes, x: np.ndarray) -> dict[str, int]:
    """Largest difference of the file's outputs from LiteRT's reference kernels, in steps of the output's grid.

    Args:
        content: the ``.tflite`` file.
        x: samples, float32 [N, ...].

    Returns:
        ``"runtime/resolver"`` -> steps.
    """
    reference = measure.run(content, x, resolver="BUILTIN_REF")
    step = output_step(content)
    found = {}
    for key, (runtime, resolver) in _OPTIONS.items():
        outputs = measure.run(content, x, runtime=runtime, resolver=resolver)
        found[key] = int(np.round(np.abs(outputs - reference).max() / step))
    return found


def operator_differences(content: bytes, sample: np.ndarray) -> dict[str, list]:
    """Largest difference of any single operator from LiteRT's reference kernel, in steps of its output's grid.

    Operators with float ends, or with a shape that is computed on the way, are left out.

    Args:
        content: the ``.tflite`` file; its main subgraph.
        sample: what the network gets, float32 [...].

    Returns:
        ``"runtime/resolver"`` -> [steps, name of the operator where they occur, None if there are none].
    """
    graph = _load(content)
    values = _all_tensors(content, sample)
    found = {key: [0, None] for key in _OPTIONS}
    for index, operator in enumerate(graph.subgraphs[0].operators):
        alone, feeds = one_operator_file(graph, index)
        if any(values[i].dtype not in _INTEGERS for i in (*feeds, *operator.outputs)):
            continue
        for key, (runtime, resolver) in _OPTIONS.items():
            outputs = _run_alone(alone, [values[i] for i in feeds], runtime, resolver)
            steps = max(
                int(np.abs(mine.astype(np.int64) - values[i]).max(initial=0))
                for i, mine in zip(operator.outputs, outputs, strict=True)
            )
            if steps > found[key][0]:
                found[key] = [steps, measure.operator_name(graph, operator)]
    return found


def one_operator_file(graph: schema.ModelT, index: int) -> tuple[bytes, list[int]]:
    """Cut one operator out of the main subgraph.

    Returns:
        The file, and which tensors of the whole graph its inputs are.
    """
    main = graph.subgraphs[0]
    operator = copy.deepcopy(main.operators[index])
    used = list(dict.fromkeys(i for i in (*operator.inputs, *operator.outputs) if i >= 0))
    place = {old: new for new, old in enumerate(used)} | {-1: -1}
    feeds = [i for i in dict.fromkeys(operator.inputs) if i >= 0 and not _is_constant(graph, main.tensors[i])]
    outputs = [place[i] for i in operator.outputs]
    operator.inputs, operator.outputs = [place[i] for i in operator.inputs], outputs

    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.operators = b"main", [operator]
    subgraph.tensors = [copy.copy(main.tensors[i]) for i in used]
    subgraph.inputs, subgraph.outputs = [place[i] for i in feeds], outputs
    alone = schema.ModelT()
    alone.version, alone.operatorCodes, alone.subgraphs = 3, graph.operatorCodes, [subgraph]
    alone.buffers = [schema.BufferT(), *(copy.copy(graph.buffers[tensor.buffer]) for tensor in subgraph.tensors)]
    for number, tensor in enumerate(subgraph.tensors):
        tensor.buffer = number + 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(alone.Pack(builder), b"TFL3")
    return bytes(builder.Output()), feeds


def output_step(content: bytes) -> float:
    """Scale of the 8-bit grid of the file's first output.

    Raises:
        ValueError: the output is float and no DEQUANTIZE operator makes it.
    """
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    main = graph.subgraphs[0]
    output = main.outputs[0]
    if main.tensors[output].type != schema.TensorType.FLOAT32:
        return float(main.tensors[output].quantization.scale[0])
    for operator in main.operators:
        if output in operator.outputs and measure.operator_name(graph, operator) == "DEQUANTIZE":
            return float(main.tensors[operator.inputs[0]].quantization.scale[0])
    raise ValueError(f"the output {main.tensors[output].name.decode()!r} is float and has no 8-bit grid")


def _load(content: bytes) -> schema.ModelT:
    """Parse a file; buffers that lie behind the message come into it."""
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in graph.buffers:
        if buffer.offset > 1:  # 0 and 1 mark a buffer inside the message
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return graph


def _is_constant(graph: schema.ModelT, tensor: schema.TensorT) -> bool:
    data = graph.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _all_tensors(content: bytes, sample: np.ndarray) -> dict[int, np.ndarray]:
    """What LiteRT's reference kernels put into each tensor."""
    interpreter = measure.open_interpreter(content, resolver="BUILTIN_REF", preserve_all_tensors=True)
    source = interpreter.get_input_details()[0]
    interpreter.set_tensor(source["index"], to_codes(sample[None], file_ends(content).inputs[0]))
    interpreter.invoke()
    return {
        details["index"]: interpreter.get_tensor(details["index"])
        for details in interpreter.get_tensor_details()
        if details["name"]
    }


def _run_alone(content: bytes, inputs: list[np.ndarray], runtime: str, resolver: str) -> list[np.ndarray]:
    interpreter = measure.open_interpreter(content, runtime=runtime, resolver=resolver)
    details = interpreter.get_input_details()
    for source, values in zip(details, inputs, strict=True):
        interpreter.resize_tensor_input(source["index"], values.shape)
    interpreter.allocate_tensors()
    for source, values in zip(details, inputs, strict=True):
        interpreter.set_tensor(source["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(target["index"]) for target in interpreter.get_output_details()]
