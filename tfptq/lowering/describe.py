"""Block metadata of an emitted file, from the fitted weights."""

from collections.abc import Iterable
from importlib.metadata import version

from tfptq.config import QuantizationConfig
from tfptq.lowering.emit import EmittedModel
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.tflite.metadata import BlockMetadata
from tfptq.tflite.tensor_blocks import TensorBlocks
from tfptq.version import __version__

#: Packages whose versions the metadata records, beside tfptq itself.
RECORDED_PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert")


def describe(
    emitted: EmittedModel, kernels: Iterable[QuantizedKernel], config: QuantizationConfig, seed: int
) -> BlockMetadata:
    """Block metadata of a file.

    Args:
        emitted: the quantized model.
        kernels: the kernels that were written into it.
        config: config of the whole model.
        seed: seed of everything random.
    """
    place_of = emitted.model.places()
    tensors: dict[str, TensorBlocks] = {}
    for kernel, use in ((it, use) for it in kernels for use in it.uses):
        written = emitted.kernels[use]
        name = written.codes
        if name in tensors:
            continue
        subgraph, index = place_of[name]
        tensors[name] = TensorBlocks.from_quantized_weight(
            kernel.in_file(use),
            view=written.view,
            tensor=index,
            tensor_name=name,
            layer=kernel.id.owner,
            layout=kernel.layout,
            subgraph=subgraph,
            scales_tensor=None if written.block_scales is None else place_of[written.block_scales][1],
        )
    versions = {"tfptq": __version__, **{package: version(package) for package in RECORDED_PACKAGES}}
    return BlockMetadata(config.to_compact_json(), seed, versions, tuple(tensors.values()))
