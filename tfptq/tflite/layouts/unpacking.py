"""The layouts ``inline`` and ``composite``: codes that the file itself turns into float weights.

The constant of codes is reshaped so that the block scales broadcast over it: every axis that blocks cut is split into
(blocks, channels in a block). A convolution kernel ``[O, kh, kw, I]`` with blocks of ``m x n`` channels becomes
``[O/m, m*kh*kw, I/n, n]`` and its scales ``[O/m, 1, I/n, 1]``. Where blocks do not divide the channels evenly, they are
cut into pieces of the greatest common divisor, which do. Then

    codes --DEQUANTIZE--> float codes --MUL(scales)--> weights --RESHAPE--> kernel --> operator in float

and a STABLEHLO_COMPOSITE wraps all of it into a subgraph, so that a compiler which knows blocks can replace it.
"""

import math
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.lowering.rewrite import quantization_parameters
from tfptq.ops.table import spec_of
from tfptq.tflite.layouts.constants import add_codes
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True, eq=False)
class Unpacking:
    """A kernel as a constant and factors.

    Attributes:
        codes: int8 array of up to 4 axes.
        factors: float32 block scales that broadcast over ``codes``.
        shape: shape of the kernel that the operator reads.
        four_bits: whether the codes fit INT4.
    """

    codes: np.ndarray
    factors: np.ndarray
    shape: tuple[int, ...]
    four_bits: bool

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes in the file."""
        return -(-self.codes.size // 2) if self.four_bits else self.codes.size

    @property
    def stored_bytes(self) -> int:
        """Bytes of the constants in the file: codes and factors."""
        return self.code_bytes + 4 * self.factors.size


def unpacking(weight: QuantizedWeight, view: WeightView) -> Unpacking:
    """Shape the codes and scales of a weight so that scales broadcast.

    Args:
        weight: codes and scales in the canonical view.
        view: way from the kernel in the file to the canonical view.
    """
    dimensions = [part for axis in range(len(view.shape)) for part in _split(weight, view, axis)]
    scales = view.from_view(weight.scale_per_weight).reshape([size for size, _ in dimensions])
    factors = scales[tuple(slice(None) if varies else slice(1) for _, varies in dimensions)]
    merged = _merged(dimensions)
    return Unpacking(
        view.from_view(weight.codes).reshape([size for size, _ in merged]),
        np.ascontiguousarray(factors).reshape([size if varies else 1 for size, varies in merged]),
        tuple(view.shape),
        weight.bits <= 4,
    )


def _split(weight: QuantizedWeight, view: WeightView, axis: int) -> list[tuple[int, bool]]:
    """An axis of the kernel as ``(size, whether scales vary along it)``, one or two of them."""
    size = view.shape[axis]
    for axes, block, blocks in zip(
        (view.output_axes, view.input_axes), weight.scales.block_shape, weight.scales.factors.shape, strict=True
    ):
        if axis not in axes or blocks == 1:
            continue
        if len(axes) > 1:
            return [(size, True)]
        piece = math.gcd(block, size)
        return [(size // piece, True), (piece, False)]
    return [(size, False)]


def _merged(dimensions: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Join neighbours that behave alike, so that the kernels of MUL need few axes."""
    merged: list[tuple[int, bool]] = []
    for size, varies in dimensions:
        if merged and (size == 1 or merged[-1][1] == varies):
            merged[-1] = (merged[-1][0] * size, merged[-1][1])
        elif merged and merged[-1][0] == 1:
            merged[-1] = (size, varies)
        else:
            merged.append((size, varies))
    return merged


def add_unpacking(model: TFLiteModel, name: str, parts: Unpacking, prefix: str | None = None) -> tuple[list, int]:
    """Append the constants and operators that unpack a kernel.

    Args:
        model: model to write to.
        name: name of the constant of codes.
        parts: the kernel.
        prefix: what the names of all other tensors begin with; None for ``name``.

    Returns:
        The operators, and the index of the float kernel.
    """
    one, prefix = quantization_parameters([1.0], [0]), prefix or name
    codes = add_codes(model, name, parts.codes, one, parts.four_bits)
    factors = model.add_constant(f"{prefix}/scales", parts.factors)
    unpacked = model.add_activation_like(codes, f"{prefix}/codes", schema.TensorType.FLOAT32)
    product = model.add_activation_like(codes, f"{prefix}/blocks", schema.TensorType.FLOAT32)
    kernel = model.add_activation_like(codes, f"{prefix}/float", schema.TensorType.FLOAT32)
    model.tensors[kernel].shape = np.asarray(parts.shape, np.int32)
    reshape = schema.ReshapeOptionsT()  # and no constant for the shape: small kernels would notice its bytes
    reshape.newShape = list(parts.shape)
    operators = [
        model.new_operator(
            "DEQUANTIZE", [codes], [unpacked], spec_of("DEQUANTIZE").version(4 if parts.four_bits else 8)
        ),
        model.new_operator("MUL", [unpacked, factors], [product], options=schema.MulOptionsT()),
        model.new_operator("RESHAPE", [product], [kernel], options=reshape),
    ]
    return operators, kernel


def wrap_in_composite(
    model: TFLiteModel, operator, kernel_at: int, name: str, parts: Unpacking, weight: QuantizedWeight
) -> tuple:
    """Move a float operator and the unpacking of its kernel into a subgraph of their own.

    Args:
        model: model to edit.
        operator: operator with its float bias in place; it is moved.
        kernel_at: position of its kernel.
        name: name of the constant of codes.
        parts: the kernel.
        weight: the same, for the attributes.

    Returns:
        The STABLEHLO_COMPOSITE operator that takes its place, and the name that the constant of codes got.
    """
    kernel, kind = operator.inputs[kernel_at], model.operator_name(operator).lower()
    read = [index for index in operator.inputs if index not in (kernel, -1)]
    outer_inputs = [index for index in read if not model.is_constant(index)]
    outer_outputs = list(operator.outputs)
    inner = schema.SubGraphT()
    inner.name, inner.tensors = f"{name}/decomposition", []
    prefix = f"composite_{len(model.root.subgraphs)}"  # short: every layer has eight such names
    inside = {index: _copy_tensor(model, inner, index, f"{prefix}/input") for index in outer_inputs}
    inside |= {index: _copy_tensor(model, inner, index, f"{prefix}/constant") for index in read if index not in inside}
    inside |= {index: _copy_tensor(model, inner, index, f"{prefix}/output") for index in outer_outputs}
    model.root.subgraphs.append(inner)
    with model.editing(inner):
        inner.operators, inside[kernel] = add_unpacking(model, name, parts, prefix)
        codes_name = model.name(inner.operators[0].inputs[0])
    operator.inputs = [inside.get(index, index) for index in operator.inputs]
    operator.outputs = [inside[index] for index in outer_outputs]
    inner.operators.append(operator)
    inner.inputs, inner.outputs = [inside[index] for index in outer_inputs], list(operator.outputs)
    composite = model.new_operator("STABLEHLO_COMPOSITE", outer_inputs, outer_outputs)
    composite.builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
    composite.builtinOptions2 = schema.StableHLOCompositeOptionsT(
        name=f"tfptq.block_{kind}",
        decompositionSubgraphIndex=len(model.root.subgraphs) - 1,
        compositeAttributes=np.frombuffer(_attributes(weight), np.uint8),
        version=1,
    )
    return composite, codes_name


def _copy_tensor(model: TFLiteModel, subgraph, index: int, name: str) -> int:
    """Copy a tensor of the main subgraph, buffer and all, into another under a name that begins with ``name``."""
    source, tensor = model.tensors[index], schema.TensorT()
    tensor.name = model.unique_name(name)
    tensor.shape, tensor.shapeSignature, tensor.hasRank = source.shape, source.shapeSignature, source.hasRank
    tensor.type, tensor.buffer = source.type, source.buffer
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _attributes(weight: QuantizedWeight) -> bytes:
    """The shape of the metadata, for compilers that match the composite; scales are constants of its subgraph."""
    outputs, inputs, _ = weight.codes.shape
    height, width = weight.scales.block_shape
    return flexbuffers.Dumps(
        {
            "bits": weight.bits,
            "block_inputs": min(width, inputs),
            "block_outputs": min(height, outputs),
            "scale_kind": weight.scales.kind,
        }
    )
