"""``composite``: as ``inline``, inside a STABLEHLO_COMPOSITE that a compiler which knows blocks can replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tfptq.base.text import quoted
from tfptq.tflite.checks import VerificationError, require
from tfptq.tflite.layouts.base import KernelSite, WrittenKernel
from tfptq.tflite.layouts.inline import Inline
from tfptq.tflite.layouts.unpacking import add_unpacking, unpacking
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_parts import Operator

if TYPE_CHECKING:
    from tfptq.tflite.kernel_uses import KernelUse


class Composite(Inline):
    """A subgraph of its own for each use of a kernel."""

    name = "composite"
    format_name = "Composite"
    cost = (
        "have the layout composite: their operators compute in float on stock runtimes, on kernels that are unpacked "
        "at run time; TFLite Micro has no kernel for composites"
    )

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """Move the operator and the unpacking of its kernel into a subgraph; a composite takes its place."""
        model, operator = site.model, site.operator
        kernel, kind = operator.inputs[site.kernel_at], model.operator_name(operator).lower()
        outer_inputs = [index for index in _read(site) if not model.is_constant(index)]
        outer_outputs = list(operator.outputs)
        inner = schema.SubGraphT()
        inner.name, inner.tensors = f"{site.name}/decomposition", []
        prefix = f"composite_{len(model.root.subgraphs)}"  # short: every layer has eight such names
        inside = _copied_ends(site, inner, prefix, outer_inputs)
        model.root.subgraphs.append(inner)
        with model.editing(inner):
            parts, code_bits = unpacking(site.weight, site.view), self.code_bits(site.weight.bits)
            inner.operators, inside[kernel] = add_unpacking(model, site.name, parts, code_bits, prefix)
            codes, scales = model.name(inner.operators[0].inputs[0]), model.name(inner.operators[1].inputs[1])
        operator.inputs = [inside.get(index, index) for index in operator.inputs]
        operator.outputs = [inside[index] for index in outer_outputs]
        inner.operators.append(operator)
        inner.inputs, inner.outputs = [inside[index] for index in outer_inputs], list(operator.outputs)
        outputs, inputs, _ = site.weight.codes.shape
        m, n = site.weight.scales.block_shape
        attributes = _attributes(site.weight.bits, (min(m, outputs), min(n, inputs)), site.weight.scales.kind)
        composite = _composite(model, outer_inputs, outer_outputs, kind, attributes)
        return WrittenKernel(codes, inside[kernel], [composite], operator, site.view, block_scales=scales)

    def check_way(self, use: KernelUse) -> None:
        """As inline, in a subgraph of nothing else, and composites that say what is in it."""
        super().check_way(use)
        codes, kinds = use.codes, [operator.kind for operator in use.graph.operators]
        whole = kinds == ["DEQUANTIZE", "MUL", "RESHAPE", use.operator.kind]
        require(whole, codes, f"the decomposition of its composite holds {', '.join(kinds[:8])}")
        same_outputs = use.graph.outputs == use.operator.outputs
        require(same_outputs, codes, "the decomposition of its composite does not return what its operator writes")
        callers = use.model.callers[use.blocks.subgraph]
        require(len(callers) == 1, codes, f"{len(callers)} operators run the decomposition, expected one composite")
        _check_composite(callers[0], use)


def _check_composite(composite: Operator, use: KernelUse) -> None:
    codes, options = use.codes, composite.options
    if composite.kind != "STABLEHLO_COMPOSITE" or options is None:
        raise VerificationError(f"tensor {quoted(codes.name)}: a {composite.kind} runs its subgraph, no composite")
    name = f"tfptq.block_{use.operator.kind.lower()}"
    require(options.name == name, codes, f"its composite is named {quoted(options.name)}, expected {name!r}")
    require(options.version == 1, codes, f"its composite has the version {options.version}, expected 1")
    ends = len(composite.inputs) == len(use.graph.inputs) and len(composite.outputs) == len(use.graph.outputs)
    require(ends, codes, "its composite has other inputs or outputs than the decomposition")
    blocks = use.blocks
    expected = _attributes(blocks.bits, blocks.block_shape, blocks.scale_kind)
    same = options.composite_attributes.tobytes() == expected and options.composite_attributes_format == 0
    require(same, codes, "the attributes of its composite are not those of the metadata")


def _read(site: KernelSite) -> list[int]:
    """Tensors that the operator reads beside its kernel."""
    return [index for index in site.operator.inputs if index not in (site.operator.inputs[site.kernel_at], -1)]


def _copied_ends(site: KernelSite, inner, prefix: str, outer_inputs: list[int]) -> dict[int, int]:
    """Tensor that the operator reads or writes -> its copy in the subgraph."""
    read, model = _read(site), site.model
    inside = {index: _copy_tensor(model, inner, index, f"{prefix}/input") for index in outer_inputs}
    inside |= {index: _copy_tensor(model, inner, index, f"{prefix}/constant") for index in read if index not in inside}
    return inside | {index: _copy_tensor(model, inner, index, f"{prefix}/output") for index in site.operator.outputs}


def _copy_tensor(model: TFLiteModel, subgraph, index: int, name: str) -> int:
    """Copy a tensor of the main subgraph, buffer and all, into another under a name that begins with ``name``."""
    source, tensor = model.tensors[index], schema.TensorT()
    tensor.name = model.unique_name(name)
    tensor.shape, tensor.shapeSignature, tensor.hasRank = source.shape, source.shapeSignature, source.hasRank
    tensor.type, tensor.buffer = source.type, source.buffer
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _composite(model: TFLiteModel, inputs: list[int], outputs: list[int], kind: str, attributes: bytes):
    """The operator that runs the last subgraph."""
    composite = model.new_operator("STABLEHLO_COMPOSITE", inputs, outputs)
    composite.builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
    composite.builtinOptions2 = schema.StableHLOCompositeOptionsT(
        name=f"tfptq.block_{kind}",
        decompositionSubgraphIndex=len(model.root.subgraphs) - 1,
        compositeAttributes=np.frombuffer(attributes, np.uint8),
        version=1,
    )
    return composite


def _attributes(bits: int, block_shape: tuple[int, int], scale_kind: str) -> bytes:
    """The shape of the metadata, for compilers that match the composite; scales are constants of its subgraph."""
    outputs, inputs = block_shape
    return flexbuffers.Dumps({"bits": bits, "block_inputs": inputs, "block_outputs": outputs, "scale_kind": scale_kind})


COMPOSITE = Composite()
