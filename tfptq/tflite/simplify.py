"""Rewrites of a float ``.tflite`` that keep its function and make it fitter for integers.

* A ``Flatten`` of a model with a dynamic batch becomes SHAPE, STRIDED_SLICE, PACK and RESHAPE. When everything but
  the batch is known, ``RESHAPE(x, [-1, ...])`` computes the same. Compilers for NPUs and microcontrollers want that.
* SUM becomes MEAN and a multiplication: the reference int8 kernel of SUM gives wrong results where the grids of its
  input and output differ (LiteRT 2.3, also for the converter's own files), that of MEAN does not.
* SQUARE, which has no integer kernel, becomes ``MUL(x, x)``.
"""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.model import TFLiteModel


def simplify(model: TFLiteModel) -> None:
    """Apply all rewrites, in place."""
    fix_reshapes(model)
    replace_sums(model)
    replace_squares(model)
    model.remove_unused()


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


def replace_sums(model: TFLiteModel) -> int:
    """Rewrite every SUM over dimensions of known size as ``MEAN * size``.

    Args:
        model: edited in place.

    Returns:
        Number of sums that were rewritten.
    """
    operators, changed = [], 0
    for operator in model.operators:
        operators.append(operator)
        if model.operator_name(operator) != "SUM" or not model.is_constant(operator.inputs[1]):
            continue
        sizes = _sizes(model, operator.inputs[0])
        reduced = [sizes[axis] for axis in model.constant(operator.inputs[1]).reshape(-1)]
        if not all(size > 0 for size in reduced):
            continue
        total, name = operator.outputs[0], model.name(operator.outputs[0])
        mean = model.add_activation_like(total, f"{name}/mean", schema.TensorType.FLOAT32)
        factor = model.add_constant(f"{name}/size", np.asarray(math.prod(reduced), np.float32))
        operator.opcodeIndex, operator.outputs = model.operator_code("MEAN", 1), [mean]
        operators.append(model.new_operator("MUL", [mean, factor], [total], options=schema.MulOptionsT()))
        changed += 1
    model.operators[:] = operators
    return changed


def replace_squares(model: TFLiteModel) -> None:
    """Rewrite every SQUARE as ``MUL(x, x)``, in place."""
    for operator in model.operators:
        if model.operator_name(operator) == "SQUARE":
            operator.opcodeIndex, operator.inputs = model.operator_code("MUL", 1), operator.inputs * 2
            operator.builtinOptions, operator.builtinOptionsType = (
                schema.MulOptionsT(),
                schema.BuiltinOptions.MulOptions,
            )


def _sizes(model: TFLiteModel, index: int) -> list[int]:
    """Sizes of the dimensions of a tensor; -1 where dynamic."""
    signature = model.tensors[index].shapeSignature
    return list(model.shape(index)) if signature is None else [int(size) for size in signature]


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
