"""What refers to what in a ``.tflite`` model: indexes of tensors, buffers and operator codes."""

from ai_edge_litert import schema_py_generated as schema


def index_list(values) -> list[int]:
    """A vector of indexes of the schema, which may be missing."""
    return [] if values is None else [int(value) for value in values]


def tensors_of(operator) -> list[int]:
    """All tensors of an operator; -1 for those that it does without."""
    return [*operator.inputs, *operator.outputs, *index_list(operator.intermediates)]


def blockwise_of(tensor):
    """The ``BlockwiseQuantizationT`` of a tensor, whose scales are another tensor, or None."""
    details = None if tensor.quantization is None else tensor.quantization.details
    return details if isinstance(details, schema.BlockwiseQuantizationT) else None


def remove_unused(root) -> None:
    """Drop the buffers, tensors and operator codes of a ``ModelT`` that nothing refers to any more."""
    for position in range(len(root.subgraphs)):
        _remove_unused_tensors(root, position)
    _remove_unused_buffers(root)
    used = sorted({operator.opcodeIndex for subgraph in root.subgraphs for operator in subgraph.operators})
    root.operatorCodes = [root.operatorCodes[at] for at in used]
    for subgraph in root.subgraphs:
        for operator in subgraph.operators:
            operator.opcodeIndex = used.index(operator.opcodeIndex)


def _remove_unused_tensors(root, position: int) -> None:
    subgraph = root.subgraphs[position]
    used = set(subgraph.inputs) | set(subgraph.outputs)
    for operator in subgraph.operators:
        used.update(tensors_of(operator))
    used |= {blocks.scales for index in used - {-1} if (blocks := blockwise_of(subgraph.tensors[index]))}
    new_index = {old: new for new, old in enumerate(sorted(used - {-1}))}
    new_index[-1] = -1
    subgraph.tensors[:] = [subgraph.tensors[old] for old in sorted(used - {-1})]
    for blocks in filter(None, map(blockwise_of, subgraph.tensors)):
        blocks.scales = new_index[blocks.scales]
    subgraph.inputs = [new_index[old] for old in subgraph.inputs]
    subgraph.outputs = [new_index[old] for old in subgraph.outputs]
    for operator in subgraph.operators:
        operator.inputs = [new_index[old] for old in operator.inputs]
        operator.outputs = [new_index[old] for old in operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = [new_index[old] for old in operator.intermediates]
    for signature in root.signatureDefs or []:
        if signature.subgraphIndex == position:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = new_index[entry.tensorIndex]


def _remove_unused_buffers(root) -> None:
    tensors = [tensor for subgraph in root.subgraphs for tensor in subgraph.tensors]
    for tensor in tensors:
        if root.buffers[tensor.buffer].data is None:
            tensor.buffer = 0  # which is empty, and the same for all activations
    used = {0} | {entry.buffer for entry in root.metadata or []} | {tensor.buffer for tensor in tensors}
    used |= set(index_list(root.metadataBuffer))
    new_index = {old: new for new, old in enumerate(sorted(used))}
    root.buffers = [root.buffers[old] for old in sorted(used)]
    for holder in (*tensors, *(root.metadata or [])):
        holder.buffer = new_index[holder.buffer]
    if root.metadataBuffer is not None:
        root.metadataBuffer = [new_index[old] for old in index_list(root.metadataBuffer)]
