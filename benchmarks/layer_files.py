"""Files of equal layers side by side, in any layout: what ``benchmarks/layout_costs.py`` measures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.config import PerChannel, QuantizationConfig
from tfptq.core.blocks import QuantizedWeight, float_scales
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.float_file.layout_requests import layout_request
from tfptq.float_file.matching import operator_window
from tfptq.lowering.choose_layout import LayoutPlan
from tfptq.lowering.emit import emit
from tfptq.lowering.plan import plan_integers
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel
from tfptq.tflite.layouts import Layout
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True)
class Table:
    """What is measured for one kind of operator.

    Attributes:
        operator: its kind.
        side: height and width of its kernel.
        stride: along both axes.
        inputs: input channels.
        outputs: output channels.
        positions: of the output; squares where there is an area.
        layouts: names of the layouts beside ``int8``.
    """

    operator: str
    side: int
    stride: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positions: tuple[int, ...]
    layouts: tuple[str, ...]


_PRODUCT, _GATHERED = ("fully_connected_int4", "fully_connected_int2"), ("im2col_int4", "im2col_int2")
_WIDE, _NARROW, _AREAS = (8, 32, 128, 512), (8, 32, 128, 256), (4, 49, 196, 784)
TABLES = {
    "dense": Table("FULLY_CONNECTED", 1, 1, (16, 64, 256, 1024), (16, 64, 256, 1024), (1, 16, 196), _PRODUCT),
    "pointwise": Table("CONV_2D", 1, 1, _WIDE, _WIDE, _AREAS, _PRODUCT),
    "pointwise_strided": Table("CONV_2D", 1, 2, _NARROW, _NARROW, (16, 196), _PRODUCT),
    "conv": Table("CONV_2D", 3, 1, _NARROW, _NARROW, (16, 196, 784), _GATHERED),
    "conv_strided": Table("CONV_2D", 3, 2, _NARROW, _NARROW, (16, 196), _GATHERED),
    "depthwise": Table("DEPTHWISE_CONV_2D", 3, 1, (1,), (8, 32, 128, 512), _AREAS, ()),
    "depthwise_strided": Table("DEPTHWISE_CONV_2D", 3, 2, (1,), (8, 32, 128, 512), (4, 49, 196), ()),
    "pointwise_int4": Table("CONV_2D", 1, 1, (8, 64, 256), (8, 64, 256), (16, 196), ("int4",)),
    "conv_int4": Table("CONV_2D", 3, 1, (8, 64), (8, 64), (16, 196), ("int4",)),
    "depthwise_int4": Table("DEPTHWISE_CONV_2D", 3, 1, (1,), (8, 64, 256), (16, 196), ("int4",)),
}


def float_file(table: Table, inputs: int, outputs: int, positions: int, copies: int, joined: bool = False) -> bytes:
    """A float file of equal layers that read one input.

    Where their outputs are ``joined``, the file has one output, a single value of each: so that what is measured is
    the layers and not the ends of the file.
    """
    file = _FloatFile(table, inputs, outputs, positions)
    results = [file.add_layer(copy) for copy in range(copies)]
    file.graph.outputs = [file.join(results)] if joined else results
    model = object.__new__(TFLiteModel)
    model.root = file.root
    return model.to_bytes()


class _FloatFile:
    """A float file that is being made."""

    def __init__(self, table: Table, inputs: int, outputs: int, positions: int):
        self.table, self.rng = table, np.random.default_rng(0)
        depthwise, dense = table.operator == "DEPTHWISE_CONV_2D", table.operator == "FULLY_CONNECTED"
        size = math.isqrt(positions)
        area = ([positions] if positions > 1 else []) if dense else [size * table.stride] * 2
        shape = [outputs, inputs] if dense else [outputs, table.side, table.side, inputs]
        self.kernel_shape = [1, table.side, table.side, outputs] if depthwise else shape
        self.result_shape = [1, *(area if dense else [size, size]), outputs]
        self.graph = schema.SubGraphT(name="main", tensors=[], operators=[], inputs=[], outputs=[])
        self.root = schema.ModelT(version=3, subgraphs=[self.graph], buffers=[schema.BufferT()])
        self.root.operatorCodes, self.root.metadata = [], []
        self.graph.inputs = [self._tensor("x", [1, *area, outputs if depthwise else inputs])]

    def _tensor(self, name: str, sizes: Sequence[int], values: np.ndarray | None = None) -> int:
        """Add a tensor: float32, or a constant of the type of its values."""
        buffer, kind = 0, schema.TensorType.FLOAT32
        if values is not None:
            self.root.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
            buffer = len(self.root.buffers) - 1
            kind = schema.TensorType.INT32 if values.dtype == np.int32 else kind
        tensor = schema.TensorT(name=name, shape=np.asarray(sizes, np.int32), type=kind, buffer=buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator(self, kind: str, inputs: list[int], result: int, options: Any = None) -> int:
        code = getattr(schema.BuiltinOperator, kind)
        codes = [it.builtinCode for it in self.root.operatorCodes]
        if code not in codes:
            self.root.operatorCodes.append(schema.OperatorCodeT(min(code, 127), None, 1, code))
            codes.append(code)
        operator = schema.OperatorT(opcodeIndex=codes.index(code), inputs=inputs, outputs=[result])
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(operator)
        return result

    def add_layer(self, copy: int) -> int:
        """One more layer; returns its output."""
        outputs = self.result_shape[-1]
        kernel = self._constant(f"kernel_{copy}", self.kernel_shape)
        bias = self._constant(f"bias_{copy}", [outputs])
        options = _options(self.table, len(self.result_shape) > 2)
        result = self._tensor(f"y_{copy}", self.result_shape)
        return self._operator(self.table.operator, [self.graph.inputs[0], kernel, bias], result, options)

    def _constant(self, name: str, shape: Sequence[int]) -> int:
        return self._tensor(name, shape, self.rng.normal(0, 1, shape).astype(np.float32))

    def join(self, values: Sequence[int]) -> int:
        """The first value of each, in one tensor; four at a time, which XNNPACK can join."""
        rank = len(self.result_shape)
        start, size = (self._tensor(f"all_{it}", [rank], np.full(rank, it, np.int32)) for it in (0, 1))
        parts = [
            self._operator("SLICE", [it, start, size], self._tensor(f"first_{it}", [1] * rank), schema.SliceOptionsT())
            for it in values
        ]
        while len(parts) > 1:
            parts = [self._concatenation(parts[at : at + 4]) for at in range(0, len(parts), 4)]
        return parts[0]

    def _concatenation(self, parts: list[int]) -> int:
        if len(parts) == 1:
            return parts[0]
        shape = self.graph.tensors[parts[0]].shape.copy()
        shape[-1] = sum(self.graph.tensors[it].shape[-1] for it in parts)
        options = schema.ConcatenationOptionsT(axis=len(shape) - 1)
        return self._operator("CONCATENATION", parts, self._tensor(f"joined_{parts[0]}", shape), options)


def _options(table: Table, keep: bool):
    if table.operator == "FULLY_CONNECTED":
        return schema.FullyConnectedOptionsT(keepNumDims=keep)
    strides = {"strideW": table.stride, "strideH": table.stride}
    if table.operator == "DEPTHWISE_CONV_2D":
        return schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **strides)
    return schema.Conv2DOptionsT(**strides)


def in_layout(data: bytes, layout: Layout, end_type: str = "int8") -> bytes:
    """The file on integers, with random codes in a layout."""
    model = TFLiteModel(data)
    layers = [at for at, operator in enumerate(model.operators) if model.spec(operator).kernel]
    kernels = [_kernel(model, at, layout) for at in layers]
    plan = plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)))
    return emit(data, plan, kernels, input_type=end_type, output_type=end_type).model.to_bytes()


def _kernel(model: TFLiteModel, at: int, layout: Layout) -> QuantizedKernel:
    operator = model.operators[at]
    kernel_at, bias_at, input_at = model.spec(operator).weights
    tensor, bias = operator.inputs[kernel_at], model.constant(operator.inputs[bias_at])
    view = model.spec(operator).kernel_view(model.shape(tensor))
    window = operator_window(model, operator)
    use = KernelUse(at, tensor, operator.inputs[input_at], operator.outputs[0], view, window, bias)
    kernel = Kernel(KernelId(None, model.name(tensor)), view.to_view(model.constant(tensor)), (use,))
    config = QuantizationConfig(PerChannel(), weight_bits=2, weight_scale="max_abs", rounding="nearest")
    problem = layout.obstacle(layout_request(config, model, use))
    if problem is not None:
        raise ValueError(f"{layout.name} at {view.view_shape}: {problem}")
    rng = np.random.default_rng(at)
    outputs, inputs, _ = view.view_shape
    scales = float_scales(rng.uniform(0.01, 0.02, (outputs, 1)).astype(np.float32), (1, inputs))
    weight = QuantizedWeight(rng.integers(-2, 2, view.view_shape).astype(np.int8), scales, 2)
    return QuantizedKernel.of(kernel, KernelPlan(config, LayoutPlan((layout,))), weight, np.zeros(outputs, np.float32))
