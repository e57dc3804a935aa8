"""Readable names for kernels that are the weight of no known layer: the layer's path, so far as the converter kept it.

TensorFlow names what a layer computes after its scopes, ``model/encoder/dense/MatMul``, and the converter keeps that
for constants and results, with all names of what it fused. Of such a name stay the scopes of the operation with the
kernel, ``encoder/dense``: without that of the whole model, without those of TensorFlow's own functions, and without the
number that Keras 3 adds to each. A kernel without scopes goes by the name of its constant, or by its operator.
"""

import re
from collections.abc import Collection, Mapping

from tfptq.base.text import unique_name
from tfptq.tflite.model import TFLiteModel

#: Operations that read a kernel: of several fused ones, that with the kernel tells the layer.
_READS_KERNEL = re.compile(r"(?i)(depthwise|conv|matmul|einsum|tensordot|dot_general|dense|linear|kernel|weight).*")
#: Scopes of TensorFlow's own functions, inside of a layer.
_FUNCTION = re.compile(r"(Tensordot|einsum|Einsum|separable_conv2d|convolution|conv\dd_transpose)(_\d+)?")
_CALL, _NUMBER = re.compile(r"(Stateful)?PartitionedCall(_\d+)?(:\d+)?|serving_default.*|"), re.compile(r"_\d+$")
_GENERIC = re.compile(r"(arith\.constant|tfl\.pseudo_\w*const|constant|const|tensor|t)?[_.]?\d*(_\d+)?(:\d+)?")

Path = tuple[str, ...]


def names_of_kernels(model: TFLiteModel, tensors: Mapping[int, int], layers: Collection[str] = ()) -> dict[int, str]:
    """Names of kernels, no two the same.

    Args:
        model: float file.
        tensors: index of a constant kernel -> position of the first operator that reads it, in execution order.
        layers: names of the layers that paths start with, where they are known.

    Returns:
        Index of a constant -> name.
    """
    paths = {index: _path(model, index, at) for index, at in tensors.items()}
    paths = {index: _from_layer(path, layers) for index, path in _without_numbers(_without_root(paths)).items()}
    found: dict[int, str] = {}
    for index, at in tensors.items():
        own = "" if _GENERIC.fullmatch(model.name(index)) else model.name(index)
        wanted = "/".join(paths[index]) or own or model.operator_name(model.operators[at]).lower()
        found[index] = unique_name(wanted, set(found.values()))
    return found


def _path(model: TFLiteModel, constant: int, at: int) -> Path:
    """The scopes of a kernel, or none where neither its constant nor its result has any."""
    names = (model.name(constant), model.name(model.operators[at].outputs[0]))
    return next(filter(None, map(_scopes, names)), ())


def _scopes(name: str) -> Path:
    """The scopes of the operation with a kernel among those that a tensor is named after."""
    parts = [part.split("/") for part in name.split(";")]
    part = next((part for part in parts if _READS_KERNEL.fullmatch(part[-1])), parts[0])
    scopes = [scope for scope in part[:-1] if not _CALL.fullmatch(scope)]
    while scopes and _FUNCTION.fullmatch(scopes[-1]):
        scopes.pop()
    return tuple(scopes)


def _from_layer(path: Path, layers: Collection[str]) -> Path:
    """A path from the first scope that is a layer, if there is one."""
    return next((path[at:] for at, scope in enumerate(path) if scope in layers), path)


def _without_root(paths: Mapping[int, Path]) -> dict[int, Path]:
    """The paths without the scope of the model, where all have the same one."""
    named = [path for path in paths.values() if path]
    whole = len({path[0] for path in named}) == 1 and all(len(path) > 1 for path in named)
    return {index: path[1:] if whole else path for index, path in paths.items()}


def _without_numbers(paths: Mapping[int, Path]) -> dict[int, Path]:
    """The paths without the number behind each scope, where all have one and none becomes that of another kernel."""
    short = {path: tuple(_NUMBER.sub("", scope) for scope in path) for path in paths.values()}
    numbered = all(_NUMBER.search(scope) for path in short for scope in path)
    distinct = len(set(short.values())) == len(short)
    return {index: short[path] if numbered and distinct else path for index, path in paths.items()}
