"""Find the weighted layers of a ``.tflite`` file and gather what an integer device needs to run each.

A layer is an operator with a kernel that the block metadata describes and with int8 activations: its own tensors, or,
where it computes on floats, the int8 tensors on the other side of its DEQUANTIZE and QUANTIZE.
"""

import math
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tfptq.base.text import quoted
from tfptq.core.windows import Window
from tfptq.npu.convolution import Geometry
from tfptq.npu.fixed_point import activation_range
from tfptq.ops.table import spec_of
from tfptq.tflite.kernel_checks import check_use
from tfptq.tflite.kernel_uses import KernelUse, find_kernel_uses
from tfptq.tflite.kernel_window import kernel_window, transposed_size
from tfptq.tflite.metadata import BlockMetadata, FormatError, TensorBlocks
from tfptq.tflite.model_parts import Model, Subgraph, Tensor
from tfptq.tflite.model_reader import enumeration_names
from tfptq.tflite.stored_codes import MOST_SHARING, described_tensor, stored_codes

_ACTIVATIONS = enumeration_names(tflite.ActivationFunctionType)


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
    """The layers of the main subgraph in order of execution, and name -> reason of the kernels that no layer has.

    Raises:
        FormatError: an operator reads another kernel than the metadata describes.
    """
    layers, skipped, codes = [], {}, _Codes(model)
    for use in find_kernel_uses(model, metadata.tensors).uses:
        check_use(use)
        try:
            layers.append(_layer(use, codes))
        except UnsupportedLayer as reason:
            skipped[use.blocks.layer] = str(reason)
    return layers, skipped


class _Codes:
    """Codes of described weights, each decoded once, however many operators read it."""

    def __init__(self, model: Model):
        self._model = model
        self._decoded: dict[tuple[int, int], np.ndarray] = {}
        self._left = MOST_SHARING * model.size

    def of(self, blocks: TensorBlocks) -> np.ndarray:
        """int8 ``[O, I, T]``."""
        key = blocks.subgraph, blocks.tensor
        if key not in self._decoded:
            self._left -= described_tensor(blocks, self._model).stored_bytes
            if self._left < 0:
                raise FormatError(f"too many tensors share the bytes of {quoted(blocks.tensor_name)}")
            self._decoded[key] = blocks.view.to_view(stored_codes(blocks, self._model))
        return self._decoded[key]


def _layer(use: KernelUse, codes: _Codes) -> Layer:
    graph, operator, blocks = use.graph, use.operator, use.blocks
    if blocks.subgraph:
        raise UnsupportedLayer(f"it is in the subgraph {blocks.subgraph}; the executor runs layers of the main one")
    places = use.place
    if spec_of(operator.kind).states:
        raise UnsupportedLayer(f"the executor runs no {operator.kind}")
    into, out = _int8_source(graph, operator.input(places.input)), _int8_result(graph, operator.outputs[0])
    output_grid = _grid(graph.tensors[out])
    number = getattr(operator.options, "fused_activation_function", 0)
    fused = _ACTIVATIONS.get(number, "an unknown function")
    try:
        code_range = activation_range(fused, *output_grid)
    except ValueError as error:
        raise UnsupportedLayer(str(error)) from error
    return Layer(
        name=blocks.layer,
        operator=operator.kind,
        position=use.position,
        blocks=blocks,
        codes=codes.of(blocks),
        bias=_bias(graph, operator.input(places.bias)),
        geometry=_geometry(kernel_window(use)),
        input=into,
        output=out,
        input_grid=_grid(graph.tensors[into]),
        output_grid=output_grid,
        code_range=code_range,
        output_size=transposed_size(use),
    )


def _int8_source(graph: Subgraph, index: int) -> int:
    """The int8 tensor that an operator's input is, or is dequantized from."""
    if index >= 0 and graph.tensors[index].type == "FLOAT32":
        producer = graph.producer(index)
        if producer is not None and producer.kind == "DEQUANTIZE" and producer.inputs:
            index = producer.inputs[0]
    return _require_int8(graph, index, "input")


def _int8_result(graph: Subgraph, index: int) -> int:
    """The int8 tensor that an operator's output is, or is quantized to."""
    if graph.tensors[index].type == "FLOAT32":
        index = graph.quantized.get(index, index)
    return _require_int8(graph, index, "output")


def _require_int8(graph: Subgraph, index: int, what: str) -> int:
    if index < 0 or graph.tensors[index].type != "INT8" or graph.tensors[index].scale.size != 1:
        found = "left out" if index < 0 else graph.tensors[index].type
        raise UnsupportedLayer(f"the {what} is {found}; the executor needs int8 with one scale")
    return index


def _grid(tensor: Tensor) -> tuple[float, int]:
    scale, zero_point = tensor.scale[0].item(), int(tensor.zero_point[0])
    if not (0 < scale < math.inf and -128 <= zero_point <= 127):
        raise UnsupportedLayer(f"{quoted(tensor.name)} has the scale {scale} and the zero point {zero_point}")
    return scale, zero_point


def _bias(graph: Subgraph, index: int) -> np.ndarray | None:
    if index < 0:
        return None
    tensor = graph.tensors[index]
    if tensor.type not in ("INT32", "FLOAT32"):
        raise UnsupportedLayer(f"the bias {quoted(tensor.name)} is {tensor.type}; the executor needs int32 or float32")
    values = tensor.values().reshape(-1)
    if not np.isfinite(values).all():
        raise UnsupportedLayer(f"the bias {quoted(tensor.name)} has values that are not finite")
    return values


def _geometry(window: Window | None) -> Geometry | None:
    if window is None:
        return None
    return Geometry(window.kernel, window.strides, window.dilations, window.padding.upper())
