"""Rewrites of operators that only copy values, in a float ``.tflite``, into what more devices have kernels for.

* TILE, which RepeatVector, grouped attention and up-sampling of sequences become, has no kernel on TFLite Micro, in
  XNNPACK and on Ethos-U: it becomes CONCATENATION of a tensor with itself.
* A STRIDED_SLICE that takes all there is, as of ``x[:, None]``, goes away.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.model import TFLiteModel

#: Equal tensors that one CONCATENATION joins at most; with a rest they are 5, which is what XNNPACK takes.
MOST_COPIES = 4


def replace_tiles(model: TFLiteModel) -> int:
    """Rewrite every TILE by constants as CONCATENATION; returns how many."""
    operators, changed = [], 0
    for operator in model.operators:
        multiples = _multiples(model, operator)
        if multiples is None:
            operators.append(operator)
            continue
        copies = _Copies(model, model.name(operator.outputs[0]))
        result = operator.inputs[0]
        for axis, count in enumerate(multiples):
            result = copies.repeat(result, axis, count)
        copies.operators[-1].outputs = operator.outputs
        operators += copies.operators
        changed += 1
    model.operators[:] = operators
    return changed


def _multiples(model: TFLiteModel, operator: schema.OperatorT) -> list[int] | None:
    """How often a TILE repeats each axis; None where it is none, or not known, or repeats nothing."""
    if model.operator_name(operator) != "TILE" or not model.is_constant(operator.inputs[1]):
        return None
    found = model.constant(operator.inputs[1]).reshape(-1).tolist()
    return found if min(found) > 0 and max(found) > 1 else None


class _Copies:
    """Concatenations that repeat a tensor; ``name`` is that of the last result."""

    def __init__(self, model: TFLiteModel, name: str):
        self.operators: list[schema.OperatorT] = []
        self._model, self._name = model, name

    def repeat(self, tensor: int, axis: int, count: int) -> int:
        """The tensor with an axis repeated as a whole; adds the operators."""
        if count == 1:
            return tensor
        if count <= MOST_COPIES + 1:
            return self._join([tensor] * count, axis)
        many, rest = divmod(count, MOST_COPIES)
        parts = [self.repeat(tensor, axis, many)] * MOST_COPIES
        return self._join([*parts, self.repeat(tensor, axis, rest)] if rest else parts, axis)

    def _join(self, parts: list[int], axis: int) -> int:
        model = self._model
        result = model.add_activation_like(parts[0], f"{self._name}/copies", model.tensors[parts[0]].type)
        joined = model.tensors[result]
        for field in ("shape", "shapeSignature"):
            sizes = [getattr(model.tensors[part], field) for part in parts]
            if sizes[0] is not None:
                setattr(joined, field, _sizes(sizes, axis))
        options = schema.ConcatenationOptionsT(axis=axis)
        self.operators.append(model.new_operator("CONCATENATION", parts, [result], version=1, options=options))
        return result


def _sizes(parts: list[np.ndarray], axis: int) -> np.ndarray:
    """Sizes of a concatenation; -1 along the axis where a part has it."""
    found, along = np.array(parts[0], np.int32), [int(part[axis]) for part in parts]
    found[axis] = -1 if -1 in along else sum(along)
    return found


def remove_whole_slices(model: TFLiteModel) -> int:
    """Let what reads a STRIDED_SLICE that takes all read its input instead; returns how many slices that are."""
    changed = 0
    for operator in model.operators:
        if _takes_all(model, operator) and operator.outputs[0] not in model.subgraph.outputs:
            for user in model.operators:
                user.inputs = [operator.inputs[0] if index == operator.outputs[0] else index for index in user.inputs]
            changed += 1
    return changed


def _takes_all(model: TFLiteModel, operator: schema.OperatorT) -> bool:
    if model.operator_name(operator) != "STRIDED_SLICE" or not model.is_constant(operator.inputs[3]):
        return False
    options, sizes = operator.builtinOptions, model.sizes(operator.inputs[0])
    if options.newAxisMask or options.ellipsisMask or options.shrinkAxisMask:
        return False
    masked = all(options.beginMask >> axis & options.endMask >> axis & 1 for axis, size in enumerate(sizes) if size < 0)
    return (
        masked and sizes == model.sizes(operator.outputs[0]) and bool((model.constant(operator.inputs[3]) == 1).all())
    )
