"""Write kernels as constants: int8, two 4-bit codes a byte, and blockwise INT4 with float16 scales."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView, float_scales
from tfptq.lowering.rewrite import quantization_parameters
from tfptq.tflite.model import TFLiteModel

#: Smallest float16 with full precision.
_SMALLEST_HALF, _LARGEST_HALF = 2.0**-14, 65504.0


def pack_int4(codes: np.ndarray) -> np.ndarray:
    """Pack codes in -8..7 two to a byte, the first in the low half; an odd last byte is filled with a 0.

    Args:
        codes: int8 of any shape.

    Returns:
        uint8 ``[ceil(size / 2)]``.

    Raises:
        ValueError: a code needs more than 4 bits.
    """
    if codes.size and not -8 <= codes.min() <= codes.max() <= 7:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit 4 bits, -8 to 7")
    flat = np.zeros(codes.size + codes.size % 2, np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8) & 15
    return flat[0::2] | flat[1::2] << 4


def add_codes(model: TFLiteModel, name: str, codes: np.ndarray, quantization, four_bits: bool) -> int:
    """Append a constant of codes in their shape, INT4 or INT8; returns its index."""
    if not four_bits:
        return model.add_constant(name, codes, quantization)
    index = model.add_constant(name, pack_int4(codes), quantization, schema.TensorType.INT4)
    model.tensors[index].shape = np.asarray(codes.shape, np.int32)
    return index


def add_integer_kernel(
    model: TFLiteModel, name: str, weight: QuantizedWeight, view: WeightView, layout: str
) -> tuple[int, np.ndarray]:
    """Append a kernel in the layout ``int8`` or ``int4``.

    Args:
        model: model to write to.
        name: name of the tensor.
        weight: codes and scales.
        view: way from the kernel in the file to the canonical view.
        layout: ``"int8"`` or ``"int4"``.

    Returns:
        Index of the tensor and float32 ``[O]`` scales.

    Raises:
        ValueError: the weight has no exact int8 form.
    """
    form = weight.int8_form()
    if form is None:
        raise ValueError(f"the blocks of {name!r} have no exact int8 form; choose another layout")
    codes, scales = form
    stored = scales if len(np.unique(scales)) > 1 else scales[:1]
    quantization = quantization_parameters(stored, np.zeros(len(stored), np.int64), view.output_axes[0])
    return add_codes(model, name, view.from_view(codes), quantization, layout == "int4"), scales


def half_scales(scales: BlockScales) -> BlockScales:
    """Block scales rounded to float16 numbers, as the layout ``native`` holds them.

    Raises:
        ValueError: a scale leaves the range in which float16 is precise.
    """
    values = scales.values()
    if values.min() < _SMALLEST_HALF or values.max() > _LARGEST_HALF:
        raise ValueError(
            f"block scales from {values.min():.3g} to {values.max():.3g} do not fit float16, which the layout 'native' "
            "uses; choose the layout 'inline' or 'composite'"
        )
    return float_scales(values.astype(np.float16).astype(np.float32), scales.block_shape)


def add_native_kernel(model: TFLiteModel, name: str, weight: QuantizedWeight, view: WeightView) -> int:
    """Append a FULLY_CONNECTED kernel with ``BlockwiseQuantization``.

    Args:
        model: model to write to.
        name: name of the tensor.
        weight: codes and float16 scales, see ``half_scales``.
        view: way from the kernel ``[O, I]`` to the canonical view.

    Returns:
        Index of the tensor.
    """
    (height, width), outputs = weight.scales.block_shape, view.view_shape[0]
    rows = np.repeat(weight.scales.values(), height, axis=0)[:outputs].astype(np.float16)  # [O, H]
    quantization = schema.QuantizationParametersT()
    quantization.details = schema.BlockwiseQuantizationT(
        scales=model.add_constant(f"{name}/scales", rows), zeroPoints=-1, blockSize=width
    )
    quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    return add_codes(model, name, view.from_view(weight.codes), quantization, four_bits=True)
