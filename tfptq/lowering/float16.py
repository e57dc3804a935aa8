"""Float constants as float16: constant -> DEQUANTIZE -> what reads it.

XNNPACK unpacks such constants once, when it loads a file; the built-in kernels do at the first call.
"""

from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.config import QuantizationConfig
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelId
from tfptq.tflite.model import TFLiteModel

#: Constants of fewer numbers stay float32: a DEQUANTIZE and its tensor take about as many bytes as they would save.
FEWEST_NUMBERS = 128
#: Least version of DEQUANTIZE that reads float16.
_VERSION = 3
_LARGEST = float(np.finfo(np.float16).max)


def float16_constants(float_file: FloatFile, config: QuantizationConfig, fitted: Iterable[KernelId]) -> set[int]:
    """Tensor indexes of the constants that a config wants in float16.

    With ``weight_bits=16`` these are all large float constants of the file, embeddings among them; else the kernels of
    the layers that have it by an override.

    Args:
        fitted: the kernels that have codes.
    """
    model, taken = float_file.model, set(fitted)
    whole = config.keeps_weights and not config.skip
    if whole:
        found = {index for operator in model.operators for index in operator.inputs if model.is_constant(index)}
    else:
        kernels = [kernel for kernel in float_file.kernels if kernel.id.layer is not None and kernel.id not in taken]
        half = [it for it in kernels if it.id.layer and config.for_layer(it.id.layer).weight_bits == 16]
        found = {use.tensor for kernel in half for use in kernel.uses}
    coded = {use.tensor for kernel in float_file.kernels if kernel.id in taken for use in kernel.uses}
    return {index for index in found - coded if model.is_float(index) and model.constant(index).size >= FEWEST_NUMBERS}


def store_float16(model: TFLiteModel, indexes: Iterable[int]) -> None:
    """Store float constants as float16, in place; those with numbers beyond it, such as masks, stay as they are."""
    readers = model.consumers()
    for index in sorted(indexes):
        values = model.constant(index)
        if index not in readers or np.abs(values).max() > _LARGEST:
            continue
        read_by = [model.operators[at] for at in readers[index]]
        half = model.add_constant(model.release_name(index), values.astype(np.float16))
        single = model.add_activation_like(half, f"{model.name(half)}/float", schema.TensorType.FLOAT32)
        for operator in read_by:
            operator.inputs = [single if each == index else each for each in operator.inputs]
        model.operators.insert(0, model.new_operator("DEQUANTIZE", [half], [single], _VERSION))
        readers = model.consumers()
