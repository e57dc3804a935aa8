"""The tensors of the float file that hold what wrapped layers read and write."""

from collections.abc import Mapping

import keras
from ai_edge_litert import schema_py_generated as schema

from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.layers import QuantizedVariable, QuantizeWrapper


def uses_of(
    kernels: Mapping[KernelId, Kernel], wrapper: QuantizeWrapper, slot: QuantizedVariable
) -> tuple[KernelUse, ...]:
    """The uses of a wrapped layer's weight in the file."""
    kernel = kernels.get(KernelId(wrapper.layer.name, slot.name))
    return () if kernel is None else kernel.uses


def input_slot(wrapper: QuantizeWrapper, weight_name: str) -> str:
    """Name of the input that a weight meets: ``query`` for ``query/kernel`` of an attention layer."""
    prefix = weight_name.split("/")[0]
    names = [slot.name for slot in wrapper.quantized_inputs]
    return prefix if prefix in names else (names[0] if len(names) == 1 else "")


def output_tensor(float_file: FloatFile, wrapper: QuantizeWrapper, use: KernelUse) -> int | None:
    """Tensor of the file that holds what the layer returns, or None when there is none of its own."""
    function = getattr(wrapper.layer, "activation", None)
    if function in (None, keras.activations.linear):
        return use.output
    options = float_file.model.operators[use.operator].builtinOptions
    if getattr(options, "fusedActivationFunction", 0) != schema.ActivationFunctionType.NONE:
        return use.output
    written = written_tensor(float_file, use)
    return None if written == use.output else written


def written_tensor(float_file: FloatFile, use: KernelUse) -> int:
    """Result of a kernel, after an activation function of its own (such as LOGISTIC) where it has one."""
    readers = [float_file.model.operators[at] for at in float_file.model.consumers().get(use.output, [])]
    alone = len(readers) == 1 and bool(float_file.model.spec(readers[0]).fixed_grids)
    return readers[0].outputs[0] if alone else use.output
