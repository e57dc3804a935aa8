"""Embedding tables of float rows: EMBEDDING_LOOKUP on codes, in place of GATHER.

The kernels dequantize the rows that they pick: INT8 and INT4 with a scale per row, or INT4 in blocks of a row. They do
so on all stock resolvers (TF 2.21, LiteRT 2.3). What is looked up has the error of the weights and no other, so that
scales of the least weight error and nearest codes are the best. A table that is also the kernel of a dense layer is
stored once: on integers as well, where other tables are INT8 with the grid of what GATHER writes, and one that is a
kernel is looked up in float, on the scales of the kernel.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.config import PerChannel, QuantizationConfig, Target
from tfptq.core.blocks import QuantizedWeight, WeightView, quantize_nearest
from tfptq.core.decibels import signal_to_noise
from tfptq.core.windows import Window
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelId, KernelUse
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.tflite.layouts import (
    FULLY_CONNECTED_INT2,
    FULLY_CONNECTED_INT4,
    INT4,
    INT8,
    NATIVE,
    KernelSite,
    Layout,
)
from tfptq.tflite.model import TFLiteModel

#: Version of EMBEDDING_LOOKUP that knows a scale per row.
_VERSION = 4
#: Layouts of kernels ``[V, D]`` that a lookup reads as well.
_OF_DENSE_LAYERS = (INT8, FULLY_CONNECTED_INT4, FULLY_CONNECTED_INT2, NATIVE)


@dataclass(frozen=True, eq=False)
class Table:
    """A float constant ``[V, D]`` whose rows are picked by indices.

    Attributes:
        tensor: its index in the float file.
        lookups: positions of the GATHERs that read it.
        layer: name of the Embedding layer; None where it is no layer's.
        config: config of the layer.
        values: float32 ``[V, D]``.
    """

    tensor: int
    lookups: tuple[int, ...]
    layer: str | None
    config: QuantizationConfig
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class QuantizedTable(Table):
    """A table with its codes; ``layout`` and ``weight`` are None where they are those of a dense layer's kernel."""

    layout: Layout | None
    weight: QuantizedWeight | None

    @property
    def note(self) -> str:
        """What became of it, for the report."""
        name, shape = self.layer or "of no layer", "x".join(map(str, self.values.shape))
        if self.weight is None or self.layout is None:
            return f"embedding {name} ({shape}) shares the codes of a dense layer"
        ratio = signal_to_noise(self.values, self.weight.dequantize()[:, :, 0])
        size = self.layout.stored_bytes(self.weight, _view(self.values))
        return f"embedding {name} ({shape}): {self.weight.bits} bits, {size} bytes, {ratio:.1f} dB"


def find_tables(
    float_file: FloatFile,
    embeddings: Mapping[str, np.ndarray],
    config: QuantizationConfig,
    kernels: Iterable[KernelId] = (),
) -> tuple[Table, ...]:
    """The tables of a float file that are looked up in float.

    Args:
        embeddings: layer -> its table ``[V, D]``.
        config: config of the file.
        kernels: those that get codes.
    """
    tied = _tied(float_file, config.target, set(kernels))
    model = float_file.model
    lookups: dict[int, list[int]] = {}
    for at, operator in enumerate(model.operators):
        if _is_lookup(model, operator):
            lookups.setdefault(operator.inputs[0], []).append(at)
    found = []
    for tensor, positions in lookups.items():
        values = model.constant(tensor)
        layer = _layer_of(values, embeddings)
        own = _config_of(layer, config)
        if not own.keeps_weights and (tensor in tied or not own.on_integers):
            found.append(Table(tensor, tuple(positions), layer, own, values))
    return tuple(found)


def _tied(float_file: FloatFile, target: Target, kernels: Collection[KernelId]) -> set[int]:
    """Tensors that are kernels with codes, on a target that can look up in them."""
    if target.integers_only or "EMBEDDING_LOOKUP" in target.missing:
        return set()
    return {use.tensor for kernel in float_file.kernels if kernel.id in kernels for use in kernel.uses}


def lookups_in_float(tables: Iterable[Table]) -> dict[int, str]:
    """Position of a lookup on integers that is one in float, since its table is a kernel -> the reason."""
    return {
        at: "GATHER picks rows of a kernel, whose scales it has not got"
        for table in tables
        if table.config.on_integers
        for at in table.lookups
    }


def _config_of(layer: str | None, config: QuantizationConfig) -> QuantizationConfig:
    """Config of a table: 8 bits, unless an override names fewer for the layer; nothing behind it mends its errors."""
    own = config if layer is None else config.for_layer(layer)
    named = layer is not None and config.overrides_field(layer, "weight_bits")
    return own if named or own.keeps_weights else own.replace(weight_bits=8)


def _is_lookup(model: TFLiteModel, operator: schema.OperatorT) -> bool:
    """Whether an operator picks rows of a constant, and has a result with one open size at most."""
    if model.operator_name(operator) != "GATHER":
        return False
    table, indices = operator.inputs
    options = operator.builtinOptions
    rows = model.is_constant(table) and model.is_float(table) and len(model.shape(table)) == 2
    plain = options.axis == 0 and not getattr(options, "batchDims", 0)
    known = model.sizes(operator.outputs[0]).count(-1) <= 1
    return rows and plain and known and model.tensors[indices].type == schema.TensorType.INT32


def _layer_of(values: np.ndarray, embeddings: Mapping[str, np.ndarray]) -> str | None:
    return next((layer for layer, table in embeddings.items() if np.array_equal(table, values)), None)


def quantize_tables(tables: Iterable[Table], kernels: Iterable[QuantizedKernel]) -> tuple[QuantizedTable, ...]:
    """Codes for the tables; those that are kernels as well have them already."""
    taken = shared_kernels(kernels)
    return tuple(
        QuantizedTable(**vars(table), layout=None, weight=None) if table.tensor in taken else _quantized(table)
        for table in tables
    )


def shared_kernels(kernels: Iterable[QuantizedKernel]) -> dict[int, KernelUse]:
    """Tensor of the float file -> a use of it, for kernels whose codes a lookup can read."""
    return {
        use.tensor: use
        for kernel in kernels
        if kernel.layout in _OF_DENSE_LAYERS
        for use in kernel.uses
        if use.row_factors is None and use.view.shape == use.view.view_shape[:2]
    }


def _quantized(table: Table) -> QuantizedTable:
    view, own = _view(table.values), table.config
    layout = _layout(own, *table.values.shape)
    if own.granularity.has_blocks and layout is not NATIVE:
        own = own.replace(granularity=PerChannel(), scaler="float")
    canonical = view.to_view(table.values)
    scales = layout.stored_scales(own.scales_of(canonical))
    return QuantizedTable(**vars(table), layout=layout, weight=quantize_nearest(canonical, scales, own.weight_bits))


def _layout(own: QuantizationConfig, rows: int, columns: int) -> Layout:
    """Blocks where kernels take them; else INT4 where codes fill the last byte of a row, which kernels rely on."""
    _, width = own.granularity.block_shape(rows, columns)
    if own.weight_bits > 4 or columns % 2 or own.target.narrow_int8:
        return INT8
    blocks = own.granularity.has_blocks and width % 32 == 0 and columns % width == 0
    return NATIVE if blocks and NATIVE.name in own.target.dynamic else INT4


def _view(values: np.ndarray) -> WeightView:
    return WeightView(values.shape, (0,), (1,))


def write_tables(
    model: TFLiteModel,
    lookups: Mapping[int, QuantizedTable],
    kernels: Mapping[int, int],
) -> None:
    """Put lookups of codes in the place of GATHERs.

    Args:
        model: the model to edit, all of whose kernels are written.
        lookups: GATHER (by identity) -> its table.
        kernels: tensor of the float file -> that of its codes, for tables that are kernels as well.
    """
    constants = dict(kernels)
    operators: list = []
    for operator in model.operators:
        table = lookups.get(id(operator))
        operators += [operator] if table is None else _lookup(model, operator, table, constants)
    model.operators[:] = operators


def _lookup(
    model: TFLiteModel, operator: schema.OperatorT, table: QuantizedTable, constants: dict[int, int]
) -> list[schema.OperatorT]:
    """RESHAPE of the indices to one axis, EMBEDDING_LOOKUP, and RESHAPE to what the GATHER gave."""
    (_, indices), (result,), types = operator.inputs, operator.outputs, schema.TensorType
    name, sizes, columns = model.name(result), model.sizes(result), table.values.shape[1]
    flat, rows, before, after = indices, result, [], []
    if len(sizes) != 2:
        count = math.prod(model.shape(indices))
        flat = _add_tensor(model, f"{name}/indices", [count], types.INT32)
        rows = _add_tensor(model, f"{name}/rows", [count, columns], types.FLOAT32)
        before = [model.new_operator("RESHAPE", [indices], [flat], options=schema.ReshapeOptionsT(newShape=[-1]))]
        after = [model.new_operator("RESHAPE", [rows], [result], options=schema.ReshapeOptionsT(newShape=sizes))]
    lookup = model.new_operator("EMBEDDING_LOOKUP", [flat, operator.inputs[0]], [rows], _VERSION)
    if table.tensor in constants:
        lookup.inputs[1] = constants[table.tensor]
    elif table.layout is not None and table.weight is not None:
        codes = model.release_name(table.tensor)
        site = KernelSite(model, lookup, 1, codes, table.weight, _view(table.values), Window())
        constants[table.tensor] = table.layout.write(site).tensor
    return [*before, lookup, *after]


def _add_tensor(model: TFLiteModel, name: str, sizes: list[int], kind: int) -> int:
    """An activation whose first size is open."""
    tensor = schema.TensorT(name=model.unique_name(name), type=kind, buffer=0, hasRank=True)
    tensor.shape, tensor.shapeSignature = np.asarray(sizes, np.int32), np.asarray([-1, *sizes[1:]], np.int32)
    model.tensors.append(tensor)
    return len(model.tensors) - 1
