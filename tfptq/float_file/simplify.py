"""Rewrites of a float ``.tflite`` that keep its function and make it faster, and fitter for integers.

* Shapes that are computed at run time because the batch is dynamic (SHAPE, GATHER, PACK, ... before a RESHAPE) become
  constants with one -1. Compilers for NPUs and microcontrollers want that.
* A dense layer on more than two axes is RESHAPE, FULLY_CONNECTED, RESHAPE; the operator can do that itself.
* A RESHAPE, EXPAND_DIMS or SQUEEZE to a shape that is there already, or was there before, goes away.
* SUM becomes MEAN and a multiplication: the reference int8 kernel of SUM gives wrong results where the grids of its
  input and output differ (LiteRT 2.3, also for the converter's own files), that of MEAN does not.
* ZEROS_LIKE, which has no integer kernel, becomes one 0 where SELECT_V2 chooses it.
* SQUARE, which has none either, becomes ``MUL(x, x)``.
* FLOOR_DIV becomes ``FLOOR(DIV(x, y))``: where a divisor is rounded to 0, its kernel fails and DIV gives infinity.
* An LSTM starts from zeros at each call (``tfptq.float_file.lstm_operators``).
* Copies of values are written so that more devices take them (``tfptq.float_file.copies``).
* What the converter leaves apart because the batch is dynamic is fused (``tfptq.float_file.fuse``).
"""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.float_file.copies import remove_whole_slices, replace_tiles
from tfptq.float_file.fuse import fuse_biases, fuse_dilations
from tfptq.float_file.lstm_operators import reset_states
from tfptq.tflite.model import TFLiteModel


def simplify(model: TFLiteModel) -> None:
    """Apply all rewrites, in place."""
    fix_reshapes(model)
    read_through_reshapes(model)
    keep_axes_of_dense_layers(model)
    fuse_dilations(model)
    fuse_biases(model)
    replace_tiles(model)
    remove_whole_slices(model)
    remove_idle_reshapes(model)
    replace_sums(model)
    replace_squares(model)
    replace_chosen_zeros(model)
    replace_floor_divisions(model)
    widen_biases(model)
    reset_states(model)
    _remove_unread(model)
    model.remove_unused()


def fix_reshapes(model: TFLiteModel) -> int:
    """Give every RESHAPE to a shape with one unknown size a constant shape: the number of values tells that size.

    Returns the number of reshapes that were changed.
    """
    changed = 0
    for operator in model.operators:
        if model.operator_name(operator) != "RESHAPE" or len(operator.inputs) < 2:
            continue
        sizes = model.sizes(operator.outputs[0])
        if model.is_constant(operator.inputs[1]) or not _told_by_the_others(sizes):
            continue
        name = f"{model.name(operator.outputs[0])}/shape"
        operator.inputs[1] = model.add_constant(name, np.asarray(sizes, np.int32))
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        changed += 1
    return changed


def read_through_reshapes(model: TFLiteModel) -> int:
    """Let every FULLY_CONNECTED read what a RESHAPE before it reads, if its inputs are the last axis there, too.

    Operators that nothing reads any more are removed. Returns the number of operators that were changed.
    """
    producers, changed = model.producers(), 0
    for operator in model.operators:
        if model.operator_name(operator) != "FULLY_CONNECTED":
            continue
        before = model.operators[producers[operator.inputs[0]]] if operator.inputs[0] in producers else None
        if before is None or model.operator_name(before) != "RESHAPE" or operator.builtinOptions.keepNumDims:
            continue
        if model.sizes(before.inputs[0])[-1] == model.shape(operator.inputs[1])[-1]:
            operator.inputs = [before.inputs[0], *operator.inputs[1:]]
            changed += 1
    _remove_unread(model)
    return changed


def keep_axes_of_dense_layers(model: TFLiteModel) -> int:
    """Let every FULLY_CONNECTED keep the leading axes of its input where all that follows is a RESHAPE back to them.

    Returns the number of operators that were changed.
    """
    changed = 0
    for operator in list(model.operators):
        users = [user for user in model.operators if set(operator.outputs) & set(user.inputs)]
        if len(users) != 1 or [*map(model.operator_name, (operator, *users))] != ["FULLY_CONNECTED", "RESHAPE"]:
            continue
        sizes, target = model.sizes(operator.inputs[0]), users[0].outputs[0]
        restored = [*sizes[:-1], model.shape(operator.inputs[1])[0]]
        if (
            sizes[-1] == model.shape(operator.inputs[1])[-1]
            and model.sizes(target) == restored
            and _told_by_the_others(restored)
            and operator.outputs[0] not in model.subgraph.outputs
        ):
            operator.outputs = [target]
            operator.builtinOptions.keepNumDims = True
            model.raise_version(operator, model.spec(operator).options["keepNumDims"])
            model.operators.remove(users[0])
            changed += 1
    return changed


def remove_idle_reshapes(model: TFLiteModel) -> int:
    """Remove every RESHAPE, EXPAND_DIMS and SQUEEZE that only brings back a shape that its values had before.

    A stack of one-dimensional convolutions has two between each pair of them. Operators that nothing reads any more are
    removed. Returns the number of operators whose readers read an earlier tensor now.
    """
    sources: dict[int, list[int]] = {}  # result of a view -> the tensors with the same values before it
    changed = 0
    for operator in model.operators:
        if not model.spec(operator).views:
            continue
        result, sizes = operator.outputs[0], model.sizes(operator.outputs[0])
        sources[result] = [operator.inputs[0], *sources.get(operator.inputs[0], ())]
        same = [source for source in sources[result] if model.sizes(source) == sizes]
        if same and _told_by_the_others(sizes) and result not in model.subgraph.outputs:
            for user in model.operators:
                user.inputs = [same[-1] if index == result else index for index in user.inputs]
            changed += 1
    _remove_unread(model)
    return changed


def replace_sums(model: TFLiteModel) -> int:
    """Rewrite every SUM of floats over dimensions of known size as ``MEAN * size``; returns how many."""
    operators, changed = [], 0
    for operator in model.operators:
        operators.append(operator)
        if model.operator_name(operator) != "SUM" or not model.is_constant(operator.inputs[1]):
            continue
        if not model.is_float(operator.inputs[0]):  # integers have no mean
            continue
        sizes = model.sizes(operator.inputs[0])
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


def widen_biases(model: TFLiteModel) -> None:
    """Give every TRANSPOSE_CONV a bias for each output channel, in place.

    The converter fuses a constant that is added behind it (the 3 of a hard sigmoid) as a bias of one number, and the
    kernels refuse that.
    """
    for operator in model.operators:
        if model.operator_name(operator) != "TRANSPOSE_CONV" or len(operator.inputs) < 4 or operator.inputs[3] < 0:
            continue
        outputs, bias = model.shape(operator.inputs[1])[0], operator.inputs[3]
        if model.is_constant(bias) and model.constant(bias).size == 1 != outputs:
            values = np.full(outputs, model.constant(bias).reshape(-1)[0])
            operator.inputs[3] = model.add_constant(f"{model.name(bias)}/{model.name(operator.outputs[0])}", values)


def replace_squares(model: TFLiteModel) -> None:
    """Rewrite every SQUARE as ``MUL(x, x)``, in place."""
    for operator in model.operators:
        if model.operator_name(operator) == "SQUARE":
            operator.opcodeIndex, operator.inputs = model.operator_code("MUL", 1), operator.inputs * 2
            operator.builtinOptions, operator.builtinOptionsType = (
                schema.MulOptionsT(),
                schema.BuiltinOptions.MulOptions,
            )


def replace_chosen_zeros(model: TFLiteModel) -> None:
    """Let every SELECT_V2 choose from one 0 in place of as many as another tensor has, in place.

    Where another operand has the shape of the result. What is chosen from an input of the model stays: ZEROS_LIKE keeps
    it in float.
    """
    readers, inputs = model.consumers(), set(model.subgraph.inputs)
    for operator in model.operators:
        if model.operator_name(operator) != "ZEROS_LIKE" or not model.is_float(operator.outputs[0]):
            continue
        zeros = operator.outputs[0]
        for reader in (model.operators[to] for to in readers.get(zeros, [])):
            others = [index for index in reader.inputs if index != zeros]
            whole = any(model.sizes(index) == model.sizes(reader.outputs[0]) for index in others)
            of_input = any(index in inputs and model.is_float(index) for index in others)
            if model.operator_name(reader) == "SELECT_V2" and whole and not of_input:
                one = model.add_constant(f"{model.name(zeros)}/zero", np.zeros((), np.float32))
                reader.inputs = [one if index == zeros else index for index in reader.inputs]
    _remove_unread(model)


def replace_floor_divisions(model: TFLiteModel) -> None:
    """Rewrite every FLOOR_DIV of floats as ``FLOOR(DIV(x, y))``, in place."""
    operators = []
    for operator in model.operators:
        if model.operator_name(operator) == "FLOOR_DIV" and model.is_float(operator.outputs[0]):
            result, name = operator.outputs[0], model.name(operator.outputs[0])
            ratio = model.add_activation_like(result, f"{name}/ratio", schema.TensorType.FLOAT32)
            operators.append(model.new_operator("DIV", list(operator.inputs), [ratio], options=schema.DivOptionsT()))
            operator = model.new_operator("FLOOR", [ratio], [result])
        operators.append(operator)
    model.operators[:] = operators


def _told_by_the_others(sizes: list[int]) -> bool:
    """Whether at most one size is unknown, so that the number of values tells it, and none is 0."""
    return sizes.count(-1) <= 1 and all(size > 0 or size == -1 for size in sizes)


def _remove_unread(model: TFLiteModel) -> None:
    """Remove operators whose results nobody reads, from the end to the start."""
    kept = []
    wanted = set(model.subgraph.outputs)
    for operator in reversed(model.operators):
        if wanted & set(operator.outputs) or not operator.outputs:
            wanted |= set(operator.inputs)
            kept.append(operator)
    model.operators[:] = kept[::-1]
