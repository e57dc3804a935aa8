"""Small int8 ``.tflite`` files made by hand, so that tests of the file format need neither Keras nor the emitter."""

from dataclasses import replace

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.core.windows import Window
from tfptq.tflite.layouts import INT4, INT8, NATIVE, KernelSite
from tfptq.tflite.layouts.unpacking import unpacking
from tfptq.tflite.metadata import BlockMetadata, TensorBlocks, attach
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.serialize import pack_model

CONFIG = '{"granularity": {"type": "PerTensor"}}'
VIEWS = {
    "CONV_2D": lambda shape: WeightView(shape, (0,), (3,), (1, 2)),
    "TRANSPOSE_CONV": lambda shape: WeightView(shape, (0,), (3,), (1, 2)),
    "DEPTHWISE_CONV_2D": lambda shape: WeightView(shape, (3,), (0,), (1, 2)),
    "FULLY_CONNECTED": lambda shape: WeightView(shape, (0,), (1,), ()),
}
OPTIONS = {
    "CONV_2D": schema.Conv2DOptionsT,
    "TRANSPOSE_CONV": schema.TransposeConvOptionsT,
    "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptionsT,
    "FULLY_CONNECTED": schema.FullyConnectedOptionsT,
}
VERSIONS = {
    "CONV_2D": 3,
    "TRANSPOSE_CONV": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "DEQUANTIZE": 2,
    "QUANTIZE": 1,
}


def random_weight(rng, view, kind="shift", block=None, bits=8, shared_base=True):
    """A ``QuantizedWeight`` with random codes and scales that has an exact int8 form.

    ``block`` None is one row per output channel and one column: WES for ``shift``.
    """
    outputs, inputs, _ = view.view_shape
    m, n = block or (1, inputs)
    rows, columns = -(-outputs // m), -(-inputs // n)
    smallest, largest = weight_code_range(bits)
    if kind == "shift":
        # With one column any shift will do; else code * 2**(difference of shifts) must stay inside int8.
        low, high = (-15, 0) if columns == 1 else (-4, -4 + (127 // -smallest).bit_length() - 1)
        factors = rng.integers(low, high + 1, (rows, columns)).astype(np.int8)
    elif kind == "integer":
        factors = rng.integers(1, min(16, 127 // -smallest) + 1, (rows, columns)).astype(np.int8)
    else:
        factors = rng.uniform(0.001, 0.02, (rows, columns)).astype(np.float32)
    base = np.ones(1) if kind == "float" else rng.uniform(0.001, 0.02, 1 if shared_base else rows)
    codes = rng.integers(smallest, largest + 1, view.view_shape).astype(np.int8)
    return QuantizedWeight(codes, BlockScales(kind, base.astype(np.float32), factors, (m, n)), bits)


class FileBuilder:
    """A chain of int8 layers; each reads what the one before wrote."""

    def __init__(self, input_shape, scale=0.05, zero_point=-3):
        self.model = schema.ModelT(version=3, description="hand made", operatorCodes=[], metadata=[])
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT(tensors=[], operators=[], name="main")
        self.model.subgraphs = [self.graph]
        self.blocks = []
        self.last = self._tensor("input", input_shape, schema.TensorType.INT8, None, [scale], [zero_point])
        self.graph.inputs = [self.last]

    def _tensor(self, name, shape, kind, data, scale=None, zero_point=None, axis=0):
        tensor = schema.TensorT(name=name, shape=np.asarray(shape, np.int32), type=kind, buffer=0)
        if data is not None:
            raw = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(schema.BufferT(data=raw))
            tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT(
                scale=np.asarray(scale, np.float32),
                zeroPoint=np.asarray(zero_point, np.int64),
                quantizedDimension=axis,
            )
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator_code(self, kind):
        code = getattr(schema.BuiltinOperator, kind)
        self.model.operatorCodes.append(schema.OperatorCodeT(code, None, VERSIONS[kind], code))
        return len(self.model.operatorCodes) - 1

    def layer(
        self, kind, weight, view, bias=True, grid=(0.08, 5), output_shape=None, layout=INT8, name=None, **options
    ):
        """Append a layer with a ``QuantizedWeight``.

        Args:
            kind: operator.
            weight: codes and scales; must have an exact int8 form.
            view: of the kernel in the file.
            bias: int32 ``[O]``, True for a small random one, or None.
            grid: (scale, zero point) of the output.
            output_shape: needed for TRANSPOSE_CONV only.
            layout: ``INT8`` or ``INT4``.
            name: of the kernel.
            options: of the operator.
        """
        name = name or f"layer_{len(self.blocks)}"
        _, scales = weight.int8_form()
        uniform = np.unique(scales).size == 1
        kernel = self._kernel(f"{name}/kernel", weight, view, layout)
        inputs = [self.last, kernel]
        if kind == "TRANSPOSE_CONV":
            size = self._tensor(f"{name}/size", (4,), schema.TensorType.INT32, np.asarray(output_shape, np.int32))
            inputs = [size, kernel, self.last]
        if bias is not None:
            inputs.append(self._bias(name, bias, scales, uniform))
        elif kind == "FULLY_CONNECTED":
            inputs.append(-1)
        out = self._tensor(f"{name}/output", output_shape or (1,), schema.TensorType.INT8, None, *[[g] for g in grid])
        operator = schema.OperatorT(opcodeIndex=self._operator_code(kind), inputs=inputs, outputs=[out])
        operator.builtinOptions = OPTIONS[kind](**options)
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, OPTIONS[kind].__name__[:-1])
        self.graph.operators.append(operator)
        self.blocks.append(
            TensorBlocks.from_quantized_weight(
                weight, view=view, tensor=kernel, tensor_name=f"{name}/kernel", layer=name, layout=layout
            )
        )
        self.last = out
        return self

    def float_layer(self, kind, weight, view, layout, grid=(0.08, 5), output_shape=(1,), name=None, **options):
        """Append a layer that computes in float between DEQUANTIZE and QUANTIZE, its kernel written by its layout."""
        name, kinds = name or f"layer_{len(self.blocks)}", schema.TensorType
        x = self._operator("DEQUANTIZE", [self.last], f"{name}/x", self.graph.tensors[self.last].shape)
        kernel = self._tensor(f"{name}/kernel", view.shape, kinds.FLOAT32, view.from_view(weight.dequantize()))
        outputs = len(weight.codes)
        bias = self._tensor(f"{name}/bias", (outputs,), kinds.FLOAT32, np.linspace(-1, 1, outputs, dtype=np.float32))
        y = self._operator(kind, [x, kernel, bias], f"{name}/y", output_shape, OPTIONS[kind](**options))
        self._write(kind, weight, view, layout, f"{name}/codes", name)
        self.last = self._tensor(f"{name}/output", output_shape, kinds.INT8, None, *[[g] for g in grid])
        self._append("QUANTIZE", [y], self.last)
        return self

    def _operator(self, kind, inputs, name, shape, options=None):
        """Append an operator and its float result; returns the index of this."""
        result = self._tensor(name, shape, schema.TensorType.FLOAT32, None)
        self._append(kind, inputs, result, options)
        return result

    def _append(self, kind, inputs, output, options=None):
        operator = schema.OperatorT(opcodeIndex=self._operator_code(kind), inputs=list(inputs), outputs=[output])
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(operator)

    def _write(self, kind, weight, view, layout, name, layer):
        """Let a layout write the kernel of the last operator."""
        model = TFLiteModel(pack_model(self.model))
        site = KernelSite(model, model.operators[-1], 1, name, weight, view, Window())
        written = layout.write(site)
        model.operators[-1:] = written.operators
        place = model.places()
        subgraph, tensor = place[written.codes]
        scales = None if written.block_scales is None else place[written.block_scales][1]
        where = {"tensor": tensor, "subgraph": subgraph, "tensor_name": written.codes, "scales_tensor": scales}
        self.blocks.append(TensorBlocks.from_quantized_weight(weight, view=view, layer=layer, layout=layout, **where))
        self.model, self.graph = with_texts(model.root), model.root.subgraphs[0]

    def _kernel(self, name, weight, view, layout):
        """A constant in a layout on integers."""
        codes, scales = weight.int8_form()
        stored = view.from_view(codes)
        if not layout.keeps_shape:
            stored = stored.reshape(len(stored), -1)
        file_scales = scales[:1] if layout.keeps_shape and np.unique(scales).size == 1 else scales
        kind = layout.tensor_types[0]
        data = stored if kind == "INT8" else _packed(stored, int(kind[3:]))
        zeros, axis = [0] * len(file_scales), view.output_axes[0]
        return self._tensor(name, stored.shape, getattr(schema.TensorType, kind), data, file_scales, zeros, axis)

    def weight(self, weight, view, layout=INT8, tensor_name=None, layer=None):
        """Append the constants of a weight that no operator reads, in any layout, and describe it."""
        name, scales_tensor = tensor_name or f"layer_{len(self.blocks)}/kernel", None
        if not layout.scales_in_constant:
            kernel = self._kernel(name, weight, view, layout)
        elif layout is NATIVE:
            rows = np.repeat(weight.scales.values(), weight.scales.block_shape[0], axis=0)[: len(weight.codes)]
            scales_tensor = self._tensor(f"{name}/scales", rows.shape, schema.TensorType.FLOAT16, np.float16(rows))
            kernel = self._tensor(name, view.shape, schema.TensorType.INT4, _packed(view.from_view(weight.codes)))
        else:
            parts = unpacking(weight, view)
            scales_tensor = self._tensor(
                f"{name}/scales", parts.factors.shape, schema.TensorType.FLOAT32, np.float32(parts.factors)
            )
            kernel = self._tensor(name, parts.codes.shape, schema.TensorType.INT8, parts.codes, [1.0], [0])
        described = {"tensor": kernel, "tensor_name": name, "layer": layer or name, "layout": layout}
        self.blocks.append(
            TensorBlocks.from_quantized_weight(
                weight,
                view=view,
                subgraph=len(self.model.subgraphs) - 1,
                scales_tensor=scales_tensor,
                **described,
            )
        )
        return self

    def new_subgraph(self):
        """Let what follows stand in another subgraph."""
        self.graph.outputs = [self.last]
        self.graph, self.last = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name="other"), 0
        self.model.subgraphs.append(self.graph)
        return self

    def _bias(self, name, bias, scales, uniform):
        if bias is True:
            bias = np.random.default_rng(len(self.blocks)).integers(-2000, 2000, scales.size)
        input_scale = np.float32(self.graph.tensors[self.last].quantization.scale[0])
        bias_scale = input_scale * (scales[:1] if uniform else scales)
        kind = schema.TensorType.INT32
        return self._tensor(
            f"{name}/bias", (scales.size,), kind, bias.astype(np.int32), bias_scale, [0] * len(bias_scale)
        )

    def metadata(self):
        return BlockMetadata(CONFIG, 7, {"tfptq": "0.1", "keras": "3"}, tuple(self.blocks))

    def finish(self, metadata=True):
        """The file as bytes; ``metadata`` True for its own, or a ``BlockMetadata``, or None."""
        self.graph.outputs = [self.last]
        if metadata is not None:
            attach(self.model, self.metadata() if metadata is True else metadata)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def one_layer(kind, kernel, input_shape, seed=0, grid=(0.08, 5), bias=True, output_shape=None, weight=None, **options):
    """File with one layer with lively outputs; window options are named as in the schema."""
    rng = np.random.default_rng(seed)
    view = VIEWS[kind](kernel)
    scales = {name: options.pop(name) for name in ("kind_of_scale", "block", "bits", "shared_base") if name in options}
    scales["kind"] = scales.pop("kind_of_scale", "shift")
    weight = weight or random_weight(rng, view, **scales)
    if kind != "FULLY_CONNECTED":
        options = {"strideW": 1, "strideH": 1, **options}
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = kernel[3] // input_shape[3]
    builder = FileBuilder(input_shape)
    return builder.layer(kind, weight, view, bias, grid, output_shape, **options).finish()


def with_texts(root):
    """A model that was unpacked from bytes, with names that can be compared and arrays that can be changed."""
    for tensor in (tensor for graph in root.subgraphs for tensor in graph.tensors):
        tensor.name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
        for field in ("scale", "zeroPoint"):
            if tensor.quantization is not None and getattr(tensor.quantization, field) is not None:
                setattr(tensor.quantization, field, np.array(getattr(tensor.quantization, field)))
    return root


def half_scales(weight):
    """The weight with scales that float16 holds."""
    factors = weight.scales.factors.astype(np.float16).astype(np.float32)
    return replace(weight, scales=replace(weight.scales, factors=factors))


def _packed(codes, bits=4):
    """Codes of 4 or 2 bits in bytes, the first in the lowest bits."""
    bits_of = np.unpackbits(codes.reshape(-1, 1).view(np.uint8), axis=1, count=bits, bitorder="little")
    return np.packbits(bits_of, bitorder="little")


def conv_layer(builder, rng, kernel=(6, 3, 3, 4), operator="CONV_2D", layout=INT8, **scales):
    """Append a layer with a random kernel; strides and dilations of 1."""
    view = VIEWS[operator](tuple(kernel))
    options = {} if operator == "FULLY_CONNECTED" else {"strideW": 1, "strideH": 1}
    if operator == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = 1
    return builder.layer(operator, random_weight(rng, view, **scales), view, layout=layout, **options)


def network():
    """Four layers with all kinds of scales; ``tflite/data/version_1_network.tflite`` is the same."""
    rng = np.random.default_rng(0)
    builder = FileBuilder((1, 5, 5, 3))
    conv_layer(builder, rng, (4, 3, 3, 3))
    conv_layer(builder, rng, (1, 3, 3, 4), "DEPTHWISE_CONV_2D", INT4, bits=3)
    view = VIEWS["FULLY_CONNECTED"]((6, 100))
    weight = random_weight(rng, view, "integer", (2, 30), 4, shared_base=False)
    builder.layer("FULLY_CONNECTED", weight, view)
    view = VIEWS["FULLY_CONNECTED"]((2, 6))
    return builder.layer("FULLY_CONNECTED", random_weight(rng, view, "float", (2, 6)), view)
