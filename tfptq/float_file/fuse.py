"""Fusions that the converter leaves out when the batch is dynamic, as rewrites of a float ``.tflite``.

* A dilated convolution is SPACE_TO_BATCH_ND, a convolution without dilation and BATCH_TO_SPACE_ND; the convolution
  operators can dilate themselves, in one pass over the data and with faster kernels.
* The bias of a dense layer on several axes, of an attention's projection or of a dilated convolution is an ADD behind
  the operator. On integers that is one more operator, and one more rounding of the result.
"""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.model import TFLiteModel

#: Operators between a kernel and the ADD of its bias that move values without changing their channels' order.
_MOVING = ("RESHAPE", "BATCH_TO_SPACE_ND")


def fuse_dilations(model: TFLiteModel) -> int:
    """Let convolutions dilate themselves where SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND do it for them, in place.

    A constant shape of a RESHAPE may be replaced. Returns the number of convolutions that were changed.
    """
    changed = 0
    for convolution in list(model.operators):
        if model.operator_name(convolution) not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        options = convolution.builtinOptions
        plain = (options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor) == (1, 1, 1, 1)
        chain = _dilated_chain(model, convolution)
        if chain is None or not plain or options.padding != schema.Padding.VALID:
            continue
        spread, expand, reshape, gather = chain
        block, pads = (model.constant(index).astype(int) for index in spread.inputs[1:3])
        pads = pads - model.constant(gather.inputs[2])  # what is cropped at the end need not be padded before
        one_dimensional = expand is not None
        if one_dimensional:  # the length is the width of a picture of one row
            block, pads = np.append(1, block), np.concatenate([[[0, 0]], pads])
        padding = _padding(model.shape(convolution.inputs[1])[1:3], block, pads)
        if padding is None:
            continue
        source, target = spread.inputs[0], gather.outputs[0]
        if one_dimensional:
            _move_picture(model, expand, convolution, reshape, source, target)
        else:
            convolution.inputs[0], convolution.outputs = source, [target]
        options.padding, options.dilationHFactor, options.dilationWFactor = padding, int(block[0]), int(block[1])
        model.raise_version(convolution, model.spec(convolution).options.get("dilationHFactor", 1))
        model.operators[:] = [operator for operator in model.operators if operator not in (spread, gather)]
        changed += 1
    return changed


def fuse_biases(model: TFLiteModel) -> int:
    """Make every constant that is added for each output channel behind a kernel a part of its bias, in place.

    Returns the number of additions that went away.
    """
    changed = 0
    for operator in list(model.operators):
        spec = model.spec(operator)
        if spec.kernel is None or operator.builtinOptions.fusedActivationFunction:
            continue
        kernel_at, bias_at, _ = spec.weights
        if not model.is_constant(operator.inputs[kernel_at]):
            continue  # a product of two activations
        last, users = operator, _users(model, operator)
        while len(users) == 1 and model.operator_name(users[0]) in _MOVING:
            last, users = users[0], _users(model, users[0])
        if len(users) != 1 or model.operator_name(users[0]) != "ADD":
            continue
        addition, channels = users[0], int(model.shape(operator.outputs[0])[-1])
        constant = _constant_summand(model, addition, channels)
        if constant is None or not _trailing(model.shape(last.outputs[0]), constant.shape):
            continue
        _add_to_bias(model, operator, bias_at, constant.reshape(-1))
        operator.builtinOptions.fusedActivationFunction = addition.builtinOptions.fusedActivationFunction
        last.outputs = list(addition.outputs)
        model.operators.remove(addition)
        changed += 1
    return changed


def _users(model: TFLiteModel, operator) -> list:
    """The operators that read the one result of an operator; none if it leaves the model."""
    (result,) = operator.outputs
    if result in model.subgraph.outputs:
        return []
    return [user for user in model.operators if result in user.inputs]


def _producer(model: TFLiteModel, index: int, kind: str):
    """The operator of a kind whose only result is a tensor that nothing but one operator reads, or None."""
    for operator in model.operators:
        if operator.outputs == [index]:
            return operator if model.operator_name(operator) == kind and len(_users(model, operator)) == 1 else None
    return None


def _only_user(model: TFLiteModel, operator, kind: str):
    users = _users(model, operator)
    return users[0] if len(users) == 1 and model.operator_name(users[0]) == kind else None


def _dilated_chain(model: TFLiteModel, convolution) -> tuple | None:
    """SPACE_TO_BATCH_ND, EXPAND_DIMS, RESHAPE and BATCH_TO_SPACE_ND around a convolution, the inner two or None."""
    expand, reshape = _producer(model, convolution.inputs[0], "EXPAND_DIMS"), _only_user(model, convolution, "RESHAPE")
    if (expand is None) != (reshape is None):
        return None
    spread = _producer(model, (expand or convolution).inputs[0], "SPACE_TO_BATCH_ND")
    gather = _only_user(model, reshape or convolution, "BATCH_TO_SPACE_ND")
    if spread is None or gather is None or not all(map(model.is_constant, [*spread.inputs[1:], *gather.inputs[1:]])):
        return None
    if not np.array_equal(model.constant(spread.inputs[1]), model.constant(gather.inputs[1])):
        return None
    if expand is None:
        return (spread, None, None, gather) if len(model.shape(spread.inputs[0])) == 4 else None
    rows, length = model.shape(convolution.inputs[0])[1], model.sizes(spread.inputs[0])[1]
    one_row = rows == 1 and model.constant(spread.inputs[1]).size == 1 and length > 0
    return (spread, expand, reshape, gather) if one_row else None


def _padding(kernel: Sequence[int], dilation: np.ndarray, pads: np.ndarray) -> int | None:
    """Code of the padding scheme that pads each axis by ``pads`` (``[2, 2]``, before and behind it), or None."""
    missing = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    if not pads.any():
        return schema.Padding.VALID
    if np.array_equal(pads, [(total // 2, total - total // 2) for total in missing]):
        return schema.Padding.SAME
    return None


def _move_picture(model: TFLiteModel, expand, convolution, reshape, source: int, target: int) -> None:
    """Let the operators of a one-dimensional convolution read and write whole sequences ``[N, L, C]``."""
    for tensor, sequence in ((expand.outputs[0], source), (convolution.outputs[0], target)):
        batch, length, _ = model.sizes(sequence)
        channels = model.shape(tensor)[-1]
        model.tensors[tensor].shape = np.asarray([max(batch, 1), 1, length, channels], np.int32)
        model.tensors[tensor].shapeSignature = np.asarray([batch, 1, length, channels], np.int32)
    shape = np.asarray([-1, *model.sizes(target)[1:]], np.int32)
    expand.inputs[0], reshape.outputs = source, [target]
    reshape.inputs[1] = model.add_constant(f"{model.name(target)}/shape", shape)
    reshape.builtinOptions, reshape.builtinOptionsType = None, 0


def _constant_summand(model: TFLiteModel, addition, channels: int) -> np.ndarray | None:
    """The constant of an ADD, if there is one with a value for each channel."""
    constants = [model.constant(index) for index in addition.inputs if model.is_constant(index)]
    return constants[0] if len(constants) == 1 and constants[0].size == channels else None


def _trailing(shape: Sequence[int], constant: Sequence[int]) -> bool:
    """Whether a constant covers the last axes of a tensor, value for value."""
    while constant and constant[0] == 1:
        constant = constant[1:]
    return tuple(shape[len(shape) - len(constant) :]) == tuple(constant)


def _add_to_bias(model: TFLiteModel, operator, at: int, values: np.ndarray) -> None:
    operator.inputs += [-1] * (at + 1 - len(operator.inputs))
    bias = operator.inputs[at]
    if bias >= 0:
        values = model.constant(bias).reshape(-1) + values
    operator.inputs[at] = model.add_constant(f"{model.name(operator.outputs[0])}/bias", values)
