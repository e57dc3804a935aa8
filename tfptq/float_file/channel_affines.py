"""Make one depthwise convolution of one tap of a product and a sum with constants of each channel.

That is what a BatchNormalization becomes which the converter could not fold. As two operators it would have a rounding
in between, and one scale for the constants of all channels; as a convolution it has an int32 bias and a scale for each
channel, takes its activation function in and follows the scales of channels. ``tfptq.graph.simplify`` does the same
to Keras models.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.model import TFLiteModel


def affines_as_depthwise(model: TFLiteModel) -> int:
    """Replace ``MUL(x, scale[C])`` and ``ADD(., shift[C])`` on feature maps, in place; returns how many pairs.

    Products of inputs of the file stay: those are normalized before the first grid.
    """
    readers, kept, pairs = model.consumers(), [], {}
    for at, operator in enumerate(model.operators):
        scale = _channel_constant(model, operator, "MUL")
        used = readers.get(operator.outputs[0], []) if operator.outputs else []
        if scale is None or len(used) != 1 or operator.inputs[0] in model.subgraph.inputs or _fused(operator):
            continue
        shift = _channel_constant(model, model.operators[used[0]], "ADD")
        if shift is not None and operator.outputs[0] not in model.subgraph.outputs:
            pairs[used[0]] = (at, scale, shift)
    products = {at for at, _, _ in pairs.values()}
    for at, operator in enumerate(model.operators):
        if at in pairs:
            product, scale, shift = pairs[at]
            operator = _depthwise(model, model.operators[product].inputs[0], operator, scale, shift)
        if at not in products:
            kept.append(operator)
    model.operators[:] = kept
    model.remove_unused()
    return len(pairs)


def _channel_constant(model: TFLiteModel, operator, kind: str) -> np.ndarray | None:
    """The numbers ``[C]`` that an operator of a kind combines with a feature map, its first input."""
    if model.operator_name(operator) != kind or len(model.sizes(operator.outputs[0])) != 4:
        return None
    source, constant = operator.inputs
    channels = model.sizes(operator.outputs[0])[3]
    if not (model.is_constant(constant) and model.is_float(constant)) or model.is_constant(source):
        return None
    if model.sizes(source) != model.sizes(operator.outputs[0]) or channels < 2:
        return None
    shape = model.shape(constant)
    return model.constant(constant).reshape(-1) if shape[-1:] == (channels,) and np.prod(shape) == channels else None


def _fused(operator) -> int:
    return operator.builtinOptions.fusedActivationFunction if operator.builtinOptions else 0


def _depthwise(model: TFLiteModel, source: int, total, scale: np.ndarray, shift: np.ndarray):
    """The convolution in the place of a product and the sum behind it."""
    options = schema.DepthwiseConv2DOptionsT(
        padding=schema.Padding.VALID, strideW=1, strideH=1, depthMultiplier=1, fusedActivationFunction=_fused(total)
    )
    name = model.name(total.outputs[0])
    kernel = model.add_constant(f"{name}/kernel", scale.astype(np.float32).reshape(1, 1, 1, -1))
    bias = model.add_constant(f"{name}/bias", shift.astype(np.float32))
    return model.new_operator("DEPTHWISE_CONV_2D", [source, kernel, bias], total.outputs, options=options)
