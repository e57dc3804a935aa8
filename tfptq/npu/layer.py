"""Find the weighted layers of a ``.tflite`` file and gather what an integer device needs to run each.

A layer is an operator with a kernel that the block metadata describes and with int8 activations: its own tensors, or,
where it computes on floats, the int8 tensors on the other side of its DEQUANTIZE and QUANTIZE.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tfptq.npu.convolution import Geometry
from tfptq.npu.fixed_point import activation_range
from tfptq.ops.table import OPERATORS, spec_of
from tfptq.tflite.metadata import BlockMetadata, TensorBlocks
from tfptq.tflite.model_reader import Model, Operator, Subgraph, Tensor, enumeration_names
from tfptq.tflite.stored_codes import stored_codes

_ACTIVATIONS = enumeration_names(tflite.ActivationFunctionType)
#: Operators that stand between a constant kernel and the operator that reads it.
_UNPACKING = ("DEQUANTIZE", "MUL", "RESHAPE")


@dataclass(frozen=True, eq=False)
class Layer:
    """One weighted layer. Tensors are indices into the main subgraph, grids are ``(scale, zero point)``.

    Attributes:
        name: of the Keras layer.
        position: of the operator in the subgraph.
        codes: int8 codes ``[O, I, T]`` of the kernel, as the device multiplies them (without multipliers).
        bias: int32 ``[O]``, or float32 ``[O]`` of a float operator, or None.
        geometry: window of a convolution; None for FULLY_CONNECTED.
        code_range: smallest and largest output code.
        output_size: height and width of the output of a TRANSPOSE_CONV; None for others.
    """

    name: str
    operator: str
    position: int
    blocks: TensorBlocks
    codes: np.ndarray
    bias: np.ndarray | None
    geometry: Geometry | None
    input: int
    output: int
    input_grid: tuple[float, int]
    output_grid: tuple[float, int]
    code_range: tuple[int, int]
    output_size: tuple[int, int] | None


class UnsupportedLayer(ValueError):  # noqa: N818 (it names what was met, and is caught, not shown)
    """A layer that has no integer form; the message says why."""


def find_layers(model: Model, metadata: BlockMetadata) -> tuple[list[Layer], dict[str, str]]:
    """The layers of the main subgraph in order of execution, and name -> reason of the kernels that no layer has."""
    graph = model.subgraphs[0]
    described = {blocks.tensor: blocks for blocks in metadata.tensors if blocks.subgraph == 0}
    layers, skipped, reached = [], {}, set()
    for position, operator in enumerate(graph.operators):
        blocks = _kernel_blocks(graph, operator, described)
        if blocks is None:
            continue
        reached.add(id(blocks))
        try:
            layers.append(_layer(model, position, operator, blocks))
        except UnsupportedLayer as reason:
            skipped[blocks.layer] = str(reason)
    for blocks in metadata.tensors:
        if id(blocks) not in reached:
            kinds = ", ".join(spec.name for spec in OPERATORS.values() if spec.kernel is not None)
            skipped[blocks.layer] = f"no {kinds} of the main subgraph reads {blocks.tensor_name!r}"
    return layers, skipped


def _kernel_blocks(graph: Subgraph, operator: Operator, described: dict[int, TensorBlocks]) -> TensorBlocks | None:
    """Metadata of the kernel that an operator reads, directly or through the operators that unpack it."""
    spec = spec_of(operator.kind)
    if spec.kernel is None or len(operator.inputs) <= spec.weights.kernel:
        return None
    index = operator.inputs[spec.weights.kernel]
    for _ in _UNPACKING:
        producer = graph.producers.get(index)
        if index in described or producer is None or producer.kind not in _UNPACKING or not producer.inputs:
            break
        index = producer.inputs[0]
    return described.get(index)


def _layer(model: Model, position: int, operator: Operator, blocks: TensorBlocks) -> Layer:
    graph = model.subgraphs[0]
    options = operator.options
    if options is None or not operator.outputs:
        raise UnsupportedLayer(f"the {operator.kind} lacks options or outputs")
    places = spec_of(operator.kind).weights
    _, bias, source = (operator.inputs[at] if at < len(operator.inputs) else -1 for at in places)
    into, out = _int8_source(graph, source), _int8_result(graph, operator.outputs[0])
    output_grid = _grid(graph.tensors[out])
    fused = _ACTIVATIONS.get(options.fused_activation_function, "an unknown function")
    try:
        code_range = activation_range(fused, *output_grid)
    except ValueError as error:
        raise UnsupportedLayer(str(error)) from error
    return Layer(
        name=blocks.layer,
        operator=operator.kind,
        position=position,
        blocks=blocks,
        codes=blocks.view.to_view(stored_codes(blocks, model)),
        bias=_bias(graph, bias, blocks),
        geometry=None if operator.kind == "FULLY_CONNECTED" else _geometry(options, blocks),
        input=into,
        output=out,
        input_grid=_grid(graph.tensors[into]),
        output_grid=output_grid,
        code_range=code_range,
        output_size=_transposed_size(graph, operator),
    )


def _int8_source(graph: Subgraph, index: int) -> int:
    """The int8 tensor that an operator's input is, or is dequantized from."""
    if index >= 0 and graph.tensors[index].type == "FLOAT32":
        producer = graph.producers.get(index)
        if producer is not None and producer.kind == "DEQUANTIZE" and producer.inputs:
            index = producer.inputs[0]
    return _require_int8(graph, index, "input")


def _int8_result(graph: Subgraph, index: int) -> int:
    """The int8 tensor that an operator's output is, or is quantized to."""
    if graph.tensors[index].type == "FLOAT32":
        reader = next((other for other in graph.consumers.get(index, []) if other.kind == "QUANTIZE"), None)
        if reader is not None and reader.outputs:
            index = reader.outputs[0]
    return _require_int8(graph, index, "output")


def _require_int8(graph: Subgraph, index: int, what: str) -> int:
    if index < 0 or graph.tensors[index].type != "INT8" or graph.tensors[index].scale.size != 1:
        found = "left out" if index < 0 else graph.tensors[index].type
        raise UnsupportedLayer(f"the {what} is {found}; the executor needs int8 with one scale")
    return index


def _grid(tensor: Tensor) -> tuple[float, int]:
    scale, zero_point = tensor.scale[0].item(), int(tensor.zero_point[0])
    if not (0 < scale < math.inf and -128 <= zero_point <= 127):
        raise UnsupportedLayer(f"{tensor.name!r} has the scale {scale} and the zero point {zero_point}")
    return scale, zero_point


def _bias(graph: Subgraph, index: int, blocks: TensorBlocks) -> np.ndarray | None:
    if index < 0:
        return None
    tensor = graph.tensors[index]
    if tensor.type not in ("INT32", "FLOAT32") or tensor.data is None or tensor.shape != (blocks.outputs,):
        raise UnsupportedLayer(f"the bias {tensor.name!r} is no int32 or float32 constant of {blocks.outputs} entries")
    return tensor.values()


def _geometry(options: SimpleNamespace, blocks: TensorBlocks) -> Geometry:
    if len(blocks.shape) != 4:
        raise UnsupportedLayer(f"the kernel has the shape {blocks.shape}")
    dilation = (getattr(options, "dilation_h_factor", 1), getattr(options, "dilation_w_factor", 1))
    stride = (options.stride_h, options.stride_w)
    if min(*stride, *dilation) < 1 or options.padding not in (0, 1):
        raise UnsupportedLayer(f"strides {stride}, dilations {dilation}, padding {options.padding} make no window")
    return Geometry(blocks.shape[1:3], stride, dilation, ("SAME", "VALID")[options.padding])


def _transposed_size(graph: Subgraph, operator: Operator) -> tuple[int, int] | None:
    if operator.kind != "TRANSPOSE_CONV":
        return None
    size = graph.tensors[operator.inputs[0]]
    if size.type != "INT32" or size.shape != (4,):
        raise UnsupportedLayer("the output shape of the TRANSPOSE_CONV is not four int32 numbers")
    if size.data is not None:
        _, height, width, _ = size.values().tolist()
        return height, width
    # With an open batch size the shape is computed, and only its batch differs from that of the output tensor.
    output = graph.tensors[operator.outputs[0]].shape
    if len(output) != 4:
        raise UnsupportedLayer(f"the TRANSPOSE_CONV writes a tensor of shape {output}")
    return output[1], output[2]
