"""Replace run-time computed reshapes by constant ones.

A ``Flatten`` of a model with a dynamic batch becomes SHAPE, STRIDED_SLICE, PACK and RESHAPE. When everything but
the batch is known, ``RESHAPE(x, [-1, ...])`` computes the same. Compilers for NPUs and microcontrollers want that.
"""

import numpy as np

from tfptq.tflite.model import TFLiteModel


def fix_reshapes(model: TFLiteModel) -> int:
    """Give every RESHAPE whose shape is [batch of an input of the model, constants...] a constant shape.

    Args:
        model: edited in place; operators that nothing reads any more are removed.

    Returns:
        Number of reshapes that were changed.
    """
    producers = model.producers()
    changed = 0
    for operator in model.operators:
        if model.operator_name(operator) != "RESHAPE" or len(operator.inputs) < 2:
            continue
        shape = _constant_shape(model, producers, operator.inputs[1])
        if shape is not None:
            name = f"{model.name(operator.outputs[0])}/shape"
            operator.inputs[1] = model.add_constant(name, np.asarray(shape, np.int32))
            operator.builtinOptions, operator.builtinOptionsType = None, 0
            changed += 1
    if changed:
        _remove_unread(model)
    return changed


def _constant_shape(model: TFLiteModel, producers: dict[int, int], index: int) -> list[int] | None:
    """``[-1, constants...]`` when a PACK makes it out of a batch size and constants."""
    pack = model.operators[producers[index]] if index in producers else None
    if pack is None or model.operator_name(pack) != "PACK":
        return None
    first, *others = pack.inputs
    if not all(model.is_constant(other) for other in others) or not _is_batch_size(model, producers, first):
        return None
    sizes = [int(model.constant(other)) for other in others]
    return [-1, *sizes] if all(size > 0 for size in sizes) else None


def _is_batch_size(model: TFLiteModel, producers: dict[int, int], index: int) -> bool:
    """Whether a scalar is ``SHAPE(x)[0]`` of a tensor whose other dimensions are known."""
    if index not in producers:
        return False
    slicing = model.operators[producers[index]]
    if model.operator_name(slicing) != "STRIDED_SLICE" or slicing.inputs[0] not in producers:
        return False
    begin = [model.constant(at) if model.is_constant(at) else None for at in slicing.inputs[1:]]
    if any(values is None for values in begin) or [int(values[0]) for values in begin] != [0, 1, 1]:
        return False
    shape = model.operators[producers[slicing.inputs[0]]]
    if model.operator_name(shape) != "SHAPE":
        return False
    signature = model.tensors[shape.inputs[0]].shapeSignature
    return signature is not None and signature[0] == -1 and all(size > 0 for size in signature[1:])


def _remove_unread(model: TFLiteModel) -> None:
    """Remove operators whose results nobody reads, from the end to the start."""
    kept = []
    wanted = set(model.subgraph.outputs)
    for operator in reversed(model.operators):
        if wanted & set(operator.outputs) or not operator.outputs:
            wanted |= set(operator.inputs)
            kept.append(operator)
    model.operators[:] = kept[::-1]
