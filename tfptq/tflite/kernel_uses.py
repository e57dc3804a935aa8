"""Which operators read the kernels that the block metadata describes, and which read integer kernels that it does not.

The search goes from operators to codes, so that nothing on the way is overlooked: a kernel is described only where the
way from its codes to the operator is the one of its layout.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tfptq.base.text import quoted, shortened
from tfptq.ops.operator_spec import WeightedInputs
from tfptq.ops.table import OPERATORS, spec_of
from tfptq.tflite.checks import VerificationError
from tfptq.tflite.layouts import LAYOUTS
from tfptq.tflite.model_parts import Model, Operator, Subgraph, Tensor
from tfptq.tflite.tensor_blocks import TensorBlocks

#: Types of a kernel of codes.
_CODE_TYPES = ("INT8", "INT4", "INT2", "UINT8", "UINT4", "INT16")
#: An operator with a row in the table and without a kernel there that may have weights nevertheless.
_PRODUCT = "BATCH_MATMUL"
#: Operators that pick rows of a table -> the place of the table.
_LOOKUPS = {"GATHER": 0, "EMBEDDING_LOOKUP": 1}
#: Weight tensor (subgraph, index) -> its description.
_Described = Mapping[tuple[int, int], TensorBlocks]


@dataclass(frozen=True, eq=False)
class KernelUse:
    """An operator that reads a described kernel.

    Attributes:
        model: the file.
        blocks: the description.
        position: of the operator in the subgraph of the description.
        place: where the kernel, its bias and its activation stand among the operator's inputs.
    """

    model: Model
    blocks: TensorBlocks
    position: int
    place: WeightedInputs

    @property
    def graph(self) -> Subgraph:
        """The subgraph of the operator, and of the codes."""
        return self.model.subgraphs[self.blocks.subgraph]

    @property
    def operator(self) -> Operator:
        """The operator."""
        return self.graph.operators[self.position]

    @property
    def codes(self) -> Tensor:
        """The tensor of codes."""
        return self.graph.tensors[self.blocks.tensor]

    @property
    def kernel(self) -> int:
        """Index of the tensor that it reads as its kernel."""
        return self.operator.input(self.place.kernel)

    @property
    def owns_bias(self) -> bool:
        """Whether the scale of the bias follows from that of the kernel, not from another one of the operator."""
        return spec_of(self.operator.kind).owns_bias(self.place)


@dataclass(frozen=True)
class Undescribed:
    """An operator that may have integer weights, and that no description reaches.

    Attributes:
        operator: its kind.
        output: name of what it writes.
        reason: what it reads.
    """

    operator: str
    output: str
    reason: str


@dataclass(frozen=True, eq=False)
class KernelUses:
    """What ``find_kernel_uses`` found.

    Attributes:
        of_each: the uses of each description, one or more; as many entries as there are descriptions.
        uses: all of them in order of execution.
        undescribed: operators that no description reaches.
    """

    of_each: tuple[tuple[KernelUse, ...], ...]
    uses: tuple[KernelUse, ...]
    undescribed: tuple[Undescribed, ...]


def find_kernel_uses(model: Model, tensors: Iterable[TensorBlocks]) -> KernelUses:
    """Find the operator or operators of each description.

    Raises:
        VerificationError: a description is of a kernel that no operator reads, at least not by the way of its layout.
    """
    described = {(blocks.subgraph, blocks.tensor): blocks for blocks in tensors}
    uses: list[KernelUse] = []
    undescribed: list[Undescribed] = []
    strays: dict[tuple[int, int], Operator] = {}
    for number, graph in enumerate(model.subgraphs):
        sources = _integer_sources(graph)
        for position, operator in enumerate(graph.operators):
            own = _descriptions(graph, operator, number, described)
            uses += [KernelUse(model, blocks, position, place) for blocks, place in own]
            if own and len(own) == len(spec_of(operator.kind).kernels):
                continue
            undescribed.extend(_undescribed(graph, operator, sources))
            undescribed.extend(_table_without_record(graph, operator, number, described))
            for index in _weights(operator):
                source = sources.get(index)
                strays.setdefault((number, index if source is None else source), operator)
    found: dict[int, list[KernelUse]] = {id(blocks): [] for blocks in described.values()}
    for use in uses:
        found[id(use.blocks)].append(use)
    for place, blocks in described.items():
        if not found[id(blocks)]:
            raise VerificationError(_unread(blocks, strays.get(place)))
    return KernelUses(tuple(map(tuple, found.values())), tuple(uses), tuple(undescribed))


def _descriptions(
    graph: Subgraph, operator: Operator, number: int, described: _Described
) -> list[tuple[TensorBlocks, WeightedInputs]]:
    """The descriptions of the kernels of an operator, where the way there is that of their layouts."""
    found = []
    for place in spec_of(operator.kind).kernels:
        for layout in LAYOUTS:
            codes = layout.codes_of(graph, operator.input(place.kernel))
            blocks = None if codes is None else described.get((number, codes))
            if blocks is not None and blocks.layout is layout:
                found.append((blocks, place))
                break
    return found


def _weights(operator: Operator) -> tuple[int, ...]:
    """Indexes of the inputs of an operator that may be weights: of those that are not known, all."""
    spec = spec_of(operator.kind)
    if spec.kernel is not None:
        return tuple(operator.input(place.kernel) for place in spec.kernels)
    return operator.inputs if operator.kind == _PRODUCT or operator.kind not in OPERATORS else ()


def _undescribed(graph: Subgraph, operator: Operator, sources: Mapping[int, int | None]) -> Iterator[Undescribed]:
    """Why an operator without a description should have one: at most one reason."""
    for index in _weights(operator):
        if index < 0:
            continue
        tensor, source = graph.tensors[index], sources.get(index, -1)
        if source is None or (source == -1 and spec_of(operator.kind).kernel is None):
            continue  # float weights, or an activation
        name, kind = (tensor.name, tensor.type) if source == -1 else _name_and_type(graph, source)
        how = "computed at run time" if source == -1 else "constant"
        output = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
        reason = f"reads {quoted(name)}, {kind}, {how}"
        yield Undescribed(shortened(operator.kind), shortened(output), reason)
        return


def _table_without_record(
    graph: Subgraph, operator: Operator, number: int, described: _Described
) -> Iterator[Undescribed]:
    """A table of codes that is no kernel as well: it has the scales of its tensor and no blocks to describe."""
    place = _LOOKUPS.get(operator.kind)
    index = -1 if place is None or len(operator.inputs) <= place else operator.inputs[place]
    if index < 0 or (number, index) in described:
        return
    table = graph.tensors[index]
    if table.data is not None and table.type in _CODE_TYPES:
        output = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
        reason = f"picks rows of {quoted(table.name)}, {table.type}: tables have no record, the digest covers them"
        yield Undescribed(shortened(operator.kind), shortened(output), reason)


def _name_and_type(graph: Subgraph, index: int) -> tuple[str, str]:
    return graph.tensors[index].name, graph.tensors[index].type


def _integer_sources(graph: Subgraph) -> dict[int, int | None]:
    """For each tensor that follows from constants alone: the first constant of codes among them, or None."""
    sources: dict[int, int | None] = {
        index: index if tensor.type in _CODE_TYPES else None
        for index, tensor in enumerate(graph.tensors)
        if tensor.data is not None
    }
    for operator in graph.operators:
        read = [index for index in operator.inputs if index >= 0]
        if read and all(index in sources for index in read):
            found = next((sources[index] for index in read if sources[index] is not None), None)
            sources.update((index, found) for index in operator.outputs if index not in sources)
    return sources


def _unread(blocks: TensorBlocks, stray: Operator | None) -> str:
    what = f"block metadata of layer {quoted(blocks.layer)}, tensor {quoted(blocks.tensor_name)}"
    if stray is None:
        return f"{what}: no operator with a kernel reads it"
    return f"{what}: the {stray.kind} gets it by another way than that of the layout {blocks.layout.name}"
