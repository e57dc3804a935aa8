"""Codes that the file itself turns into float weights, for the layouts ``inline`` and ``composite``.

The constant of codes is reshaped so that the block scales broadcast over it: every axis that blocks cut is split into
(blocks, channels in a block). A convolution kernel ``[O, kh, kw, I]`` with blocks of ``m x n`` channels becomes
``[O/m, m*kh*kw, I/n, n]`` and its scales ``[O/m, 1, I/n, 1]``. Where blocks do not divide the channels evenly, they are
cut into pieces of the greatest common divisor, which do. Then

    codes --DEQUANTIZE--> float codes --MUL(scales)--> weights --RESHAPE--> kernel --> operator in float
"""

import math
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.ops.table import spec_of
from tfptq.tflite.layouts.constants import add_codes
from tfptq.tflite.model import TFLiteModel, quantization_parameters


@dataclass(frozen=True, eq=False)
class Unpacking:
    """A kernel as a constant and factors.

    Attributes:
        codes: int8 array of up to 4 axes.
        factors: float32 block scales that broadcast over ``codes``.
        shape: shape of the kernel that the operator reads.
    """

    codes: np.ndarray
    factors: np.ndarray
    shape: tuple[int, ...]


def unpacking(weight: QuantizedWeight, view: WeightView) -> Unpacking:
    """Shape the codes and scales of a weight so that scales broadcast."""
    dimensions = [part for axis in range(len(view.shape)) for part in _split(weight, view, axis)]
    scales = view.from_view(weight.scale_per_weight).reshape([size for size, _ in dimensions])
    factors = scales[tuple(slice(None) if varies else slice(1) for _, varies in dimensions)]
    merged = _merged(dimensions)
    return Unpacking(
        view.from_view(weight.codes).reshape([size for size, _ in merged]),
        np.ascontiguousarray(factors).reshape([size if varies else 1 for size, varies in merged]),
        tuple(view.shape),
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


def add_unpacking(
    model: TFLiteModel, name: str, parts: Unpacking, code_bits: int, prefix: str | None = None
) -> tuple[list, int]:
    """Append what unpacks a kernel; returns the operators and the index of the float kernel.

    The constant of codes gets ``name``; ``prefix``, or ``name``, is what the names of all other tensors begin with.
    """
    one, prefix = quantization_parameters([1.0], [0]), prefix or name
    codes = add_codes(model, name, parts.codes, one, code_bits)
    factors = model.add_constant(f"{prefix}/scales", parts.factors)
    unpacked = model.add_activation_like(codes, f"{prefix}/codes", schema.TensorType.FLOAT32)
    product = model.add_activation_like(codes, f"{prefix}/blocks", schema.TensorType.FLOAT32)
    kernel = model.add_activation_like(codes, f"{prefix}/float", schema.TensorType.FLOAT32)
    model.tensors[kernel].shape = np.asarray(parts.shape, np.int32)
    reshape = schema.ReshapeOptionsT()  # and no constant for the shape: small kernels would notice its bytes
    reshape.newShape = list(parts.shape)
    operators = [
        model.new_operator("DEQUANTIZE", [codes], [unpacked], spec_of("DEQUANTIZE").version(code_bits)),
        model.new_operator("MUL", [unpacked, factors], [product], options=schema.MulOptionsT()),
        model.new_operator("RESHAPE", [product], [kernel], options=reshape),
    ]
    return operators, kernel
