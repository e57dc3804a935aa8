"""``composite``: as ``inline``, inside a STABLEHLO_COMPOSITE that a compiler which knows blocks can replace."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tfptq.core.blocks import QuantizedWeight
from tfptq.tflite.layouts.base import KernelSite, WrittenKernel
from tfptq.tflite.layouts.inline import Inline
from tfptq.tflite.layouts.unpacking import add_unpacking, unpacking
from tfptq.tflite.model import TFLiteModel


class Composite(Inline):
    """A subgraph of its own for each use of a kernel."""

    name = "composite"
    format_name = "Composite"
    policies = ()
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
        composite = _composite(model, outer_inputs, outer_outputs, kind, site.weight)
        return WrittenKernel(codes, inside[kernel], [composite], operator, site.view, block_scales=scales)


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


def _composite(model: TFLiteModel, inputs: list[int], outputs: list[int], kind: str, weight: QuantizedWeight):
    """The operator that runs the last subgraph."""
    composite = model.new_operator("STABLEHLO_COMPOSITE", inputs, outputs)
    composite.builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
    composite.builtinOptions2 = schema.StableHLOCompositeOptionsT(
        name=f"tfptq.block_{kind}",
        decompositionSubgraphIndex=len(model.root.subgraphs) - 1,
        compositeAttributes=np.frombuffer(_attributes(weight), np.uint8),
        version=1,
    )
    return composite


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


COMPOSITE = Composite()
