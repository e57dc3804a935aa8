"""Show what is inside a ``.tflite`` file: inputs and outputs, quantized weights, operators, and where it came from."""

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass

from tfptq.base.text import printable, shortened
from tfptq.ops.table import spec_of
from tfptq.tflite.interface import InterfaceRow, read_interface
from tfptq.tflite.metadata import BlockMetadata, load_bytes, metadata_of
from tfptq.tflite.model_parts import Model, Operator, Subgraph
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.stored_codes import described_tensor
from tfptq.tflite.stored_config import LEFT_OUT, whole_config


@dataclass(frozen=True)
class WeightRow:
    """One quantized weight.

    Attributes:
        layer: name of the Keras layer.
        tensor: name of the tensor.
        operator: kind of the operator that reads the tensor; empty when none does.
        shape: shape of the kernel.
        bits: width of the codes.
        granularity: ``"tensor"``, ``"channel"`` or ``"block"``.
        scales: kind of the scales: ``"float"``, ``"integer"``, ``"shift"``, or ``"WES"`` for a layer scale and shifts.
        count: number of scales.
        block: ``(output channels, input channels)`` that share a scale.
        layout: how the tensor holds the codes.
        bytes: size of the constant.
    """

    layer: str
    tensor: str
    operator: str
    shape: tuple[int, ...]
    bits: int
    granularity: str
    scales: str
    count: int
    block: tuple[int, int]
    layout: str
    bytes: int


@dataclass(frozen=True)
class OperatorRow:
    """How many operators of a kind compute on a type, such as ``INT8`` or ``INT8 -> FLOAT32``."""

    operator: str
    type: str
    count: int


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found.

    Attributes:
        bytes: size of the file.
        inputs_and_outputs: those of the model, with the scales of their codes.
        weights: quantized weights that the block metadata describes.
        operators: operators of all subgraphs by kind and type, most frequent first.
        config: the quantization config with all fields, as ``QuantizationConfig.from_json`` takes it; None when the
            file carries no block metadata.
        seed: seed of the quantization, or None.
        versions: package -> version.
        schema_version: of the block metadata, or None.
    """

    bytes: int
    inputs_and_outputs: tuple[InterfaceRow, ...]
    weights: tuple[WeightRow, ...]
    operators: tuple[OperatorRow, ...]
    config: dict | None
    seed: int | None
    versions: dict[str, str]
    schema_version: int | None

    def to_json(self, indent: int | None = 2) -> str:
        """All of it as JSON text."""
        return json.dumps(asdict(self), indent=indent)

    def render(self) -> str:
        """All of it as text tables."""
        parts = [
            _table(_INTERFACE_HEADER, [_interface_cells(row) for row in self.inputs_and_outputs]),
            f"{self.bytes:,} bytes",
            _table(_OPERATOR_HEADER, [_operator_cells(row) for row in self.operators]),
        ]
        if self.config is None:
            return "\n\n".join([*parts, "no block metadata (TFPTQ_BLOCKS)"])
        versions = printable(", ".join(f"{name} {version}" for name, version in sorted(self.versions.items())))
        changed = {field: value for field, value in self.config.items() if value != LEFT_OUT.get(field)}
        parts += [
            _table(_WEIGHT_HEADER, [_weight_cells(row) for row in self.weights]),
            f"block metadata version {self.schema_version}, seed {self.seed}\nmade with {versions}",
            printable("config " + json.dumps(changed, sort_keys=True)),
        ]
        return "\n\n".join(parts)


def inspect(file: bytes | str | os.PathLike) -> Inspection:
    """Describe any ``.tflite`` file, given as bytes or path: inputs, outputs, weights, operators and config.

    Raises:
        FormatError: the file or its block metadata is damaged or too new.
        OSError: the path cannot be read.
    """
    data = load_bytes(file)
    model = read_model(data)
    metadata = metadata_of(model)
    operators = Counter(
        (operator.kind, _operator_type(graph, operator)) for graph in model.subgraphs for operator in graph.operators
    )
    return Inspection(
        bytes=len(data),
        inputs_and_outputs=read_interface(model),
        weights=() if metadata is None else tuple(_weights(model, metadata)),
        operators=tuple(OperatorRow(*key, count) for key, count in operators.most_common()),
        config=None if metadata is None else whole_config(metadata.config),
        seed=None if metadata is None else metadata.seed,
        versions={} if metadata is None else dict(metadata.versions),
        schema_version=None if metadata is None else metadata.schema_version,
    )


def _weights(model: Model, metadata: BlockMetadata):
    readers = {
        (number, index): operator.kind
        for number, graph in enumerate(model.subgraphs)
        for operator in reversed(graph.operators)
        for index in operator.inputs
    }
    for blocks in metadata.tensors:
        yield WeightRow(
            layer=blocks.layer,
            tensor=blocks.tensor_name,
            operator=readers.get((blocks.subgraph, blocks.tensor), ""),
            shape=blocks.shape,
            bits=blocks.bits,
            granularity=blocks.granularity,
            scales="WES" if blocks.is_shift_scaler else blocks.scale_kind,
            count=int(blocks.factors.size),
            block=blocks.block_shape,
            layout=blocks.layout.name,
            bytes=described_tensor(blocks, model).stored_bytes,
        )


def _operator_type(graph: Subgraph, operator: Operator) -> str:
    """Type of the results; with the type of the first input where an operator converts."""
    result = graph.tensors[operator.outputs[0]].type if operator.outputs else "nothing"
    if not spec_of(operator.kind).converts or not operator.inputs or operator.inputs[0] < 0:
        return result
    source = graph.tensors[operator.inputs[0]].type
    return result if source == result else f"{source} -> {result}"


#: Most letters of a cell before it is shortened.
_WIDEST = 120
_INTERFACE_HEADER = ("", "index", "name", "shape", "type", "scale", "zero point")
_OPERATOR_HEADER = ("operator", "type", "count")
_WEIGHT_HEADER = ("layer", "operator", "shape", "bits", "granularity", "scales", "count", "block", "layout", "bytes")


def _interface_cells(row: InterfaceRow) -> tuple[str, ...]:
    shape = "x".join("?" if size is None else str(size) for size in row.shape)
    grid = ("" if number is None else repr(number) for number in (row.scale, row.zero_point))
    return row.end, str(row.index), row.name, shape, row.dtype, *grid


def _operator_cells(row: OperatorRow) -> tuple[str, ...]:
    return row.operator, row.type, str(row.count)


def _weight_cells(row: WeightRow) -> tuple[str, ...]:
    shape, block = "x".join(map(str, row.shape)), "x".join(map(str, row.block))
    numbers = f"{row.count:,}", block, row.layout, f"{row.bytes:,}"
    return row.layer, row.operator, shape, str(row.bits), row.granularity, row.scales, *numbers


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    rows = [tuple(printable(shortened(cell, _WIDEST)) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
