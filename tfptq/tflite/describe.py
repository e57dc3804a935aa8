"""Block metadata of an emitted file, from the fitted weights."""

from collections.abc import Mapping
from importlib.metadata import version

from tfptq.config import QuantizationConfig
from tfptq.tflite.emit import EmittedModel, KernelPlan
from tfptq.tflite.metadata import BlockMetadata
from tfptq.tflite.tensor_blocks import TensorBlocks
from tfptq.version import __version__

#: Packages whose versions the metadata records, beside tfptq itself.
RECORDED_PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert")


def describe(emitted: EmittedModel, plans: list[KernelPlan], config: QuantizationConfig, seed: int) -> BlockMetadata:
    """Block metadata of a file.

    Args:
        emitted: the quantized model.
        plans: the kernels that were written into it.
        config: config of the whole model.
        seed: seed of everything random.
    """
    index_of = {emitted.model.name(index): index for index in range(len(emitted.model.tensors))}
    tensors: Mapping[str, TensorBlocks] = {}
    for plan in plans:
        name = emitted.kernel_names[plan.binding.kernel]
        if name in tensors:
            continue
        tensors[name] = TensorBlocks.from_quantized_weight(
            plan.weight_in_file,
            view=plan.binding.view,
            tensor=index_of[name],
            tensor_name=name,
            layer=name if plan.binding.key is None else plan.binding.key[0],
            layout="int8",
        )
    versions = {"tfptq": __version__, **{package: version(package) for package in RECORDED_PACKAGES}}
    return BlockMetadata(config.to_json(indent=None), seed, versions, tuple(tensors.values()))
