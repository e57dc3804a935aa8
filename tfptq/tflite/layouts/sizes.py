"""What a layout costs: bytes in the file and, in words, time."""

import numpy as np

from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.tflite.layouts.unpacking import unpacking

#: Layout -> what the report says about the layers that have it, after their number.
COSTS = {
    "int4": "hold INT4 weights: half the bytes of int8, but stock CPU kernels run INT4 convolutions 7 to 20 times "
    "slower than INT8; layout='speed' or 'int8' computes the same at full speed",
    "native": "have the layout native: stock runtimes quantize its activations at run time, and the reference resolver "
    "computes zeros",
    "inline": "have the layout inline: their operators compute in float, on kernels that are unpacked at run time",
    "composite": "have the layout composite: their operators compute in float on stock runtimes, on kernels that are "
    "unpacked at run time; TFLite Micro has no kernel for composites",
}


def stored_bytes(layout: str, weight: QuantizedWeight, view: WeightView) -> int:
    """Bytes of the codes and scales of a kernel in the file.

    Args:
        layout: one of the layouts.
        weight: codes and scales.
        view: way from the kernel in the file to the canonical view.
    """
    if layout in ("inline", "composite"):
        return unpacking(weight, view).stored_bytes
    codes = code_bytes(layout, weight, view)
    if layout == "native":
        return codes + 2 * len(weight.codes) * weight.scales.factors.shape[1]
    scales = np.unique(weight.int8_form()[1]).size
    return codes + 4 * (1 if scales == 1 else len(weight.codes))


def code_bytes(layout: str, weight: QuantizedWeight, view: WeightView) -> int:
    """Bytes of the codes of a kernel in the file, without scales; arguments as in ``stored_bytes``."""
    if layout in ("inline", "composite"):
        return unpacking(weight, view).code_bytes
    return weight.codes.size if layout == "int8" else -(-weight.codes.size // 2)
