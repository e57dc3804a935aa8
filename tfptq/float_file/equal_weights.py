"""Tell weights with equal values apart while the converter runs.

A weight is found in the file by its values. Where two weights have the same ones (a duplicated backbone, a fixed blur
kernel, zeros at the start of training), values do not tell whose kernel an operator has; worse, the converter stores
equal constants once, and makes one operator of two that compute the same. So each of these weights is perturbed before
conversion, by some units in the last place, and by other ones for each weight. Once the kernels are found, they get
their own values back.

A perturbed weight is close to its own values, so that the converter makes the same of both, and far enough from them
not to be taken for a multiple.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.float_file.kernel import Kernel, KernelId
from tfptq.tflite.model import TFLiteModel

#: Largest perturbation, in units in the last place: three times ``FACTOR_TOLERANCE``.
REACH = 256
#: Unit by which zeros are moved: nothing to any sum, and far from the numbers that processors flush to zero.
ZERO_STEP = 1e-30


def equal_weights(weights: Mapping[KernelId, np.ndarray], others: Iterable[np.ndarray] = ()) -> set[KernelId]:
    """The weights whose values, in whatever order, some other weight has as well.

    ``others`` are weights of the model that cannot be quantized; equal ones among themselves do not count.
    """
    others = list(others)
    kinds = Counter(map(_kind, (*weights.values(), *others)))
    # Sorting all weights of a large model takes seconds, and few of them have the extremes of another.
    contents = {key: _content(weight) for key, weight in weights.items() if kinds[_kind(weight)] > 1}
    foreign = {_content(other) for other in others if kinds[_kind(other)] > 1}
    counts = Counter([*contents.values(), *foreign])
    return {key for key, content in contents.items() if counts[content] > 1}


def perturb(
    weights: Mapping[KernelId, np.ndarray], keys: Collection[KernelId], others: Iterable[np.ndarray] = ()
) -> dict[KernelId, np.ndarray]:
    """Values for some of the weights ``[O, I, T]``, which no two weights share; the same for the same arguments.

    ``others`` are weights of the model that cannot be quantized.
    """
    sizes = {weights[key].size for key in keys}
    taken = {_content(weight) for weight in (*weights.values(), *others) if weight.size in sizes}
    rng = np.random.default_rng(0)
    found = {}
    for key in (key for key in weights if key in keys):
        weight = np.asarray(weights[key], np.float32)
        for reach in itertools.count(REACH):
            steps = rng.integers(-reach, reach + 1, weight.shape)
            moved = weight * (1.0 + steps * float(np.finfo(np.float32).eps))
            perturbed_weight = np.where(weight == 0.0, steps * ZERO_STEP, moved).astype(np.float32)
            if _content(perturbed_weight) not in taken:  # a kernel of few weights may need to go further
                break
        taken.add(_content(perturbed_weight))
        found[key] = perturbed_weight
    return found


def restore(model: TFLiteModel, kernels: Iterable[Kernel], keys: Collection[KernelId]) -> None:
    """Give those kernels that were perturbed their own values back, in place.

    Tensors keep their indexes, and those with equal values share a buffer.
    """
    buffer_of: dict[bytes, int] = {}
    emptied = set()
    uses = ((use, kernel) for kernel in kernels if kernel.id in keys for use in kernel.uses)
    in_order = sorted(uses, key=lambda pair: pair[0].operator)
    for index, (use, kernel) in {use.tensor: (use, kernel) for use, kernel in in_order}.items():
        values = use.view.from_view(use.stored_values(kernel.values))
        content = np.ascontiguousarray(values, np.float32).tobytes()
        tensor = model.tensors[index]
        if content not in buffer_of:
            buffer_of[content] = tensor.buffer
            _replace_buffer(model, tensor.buffer, content)
        elif tensor.buffer != buffer_of[content]:
            emptied.add(tensor.buffer)
            tensor.buffer = buffer_of[content]
    for index in emptied.difference(tensor.buffer for subgraph in model.root.subgraphs for tensor in subgraph.tensors):
        _replace_buffer(model, index, None)


def _replace_buffer(model: TFLiteModel, index: int, content: bytes | None) -> None:
    """Put a new entry in the place of a buffer; copies of the model share the old one."""
    model.root.buffers[index] = schema.BufferT()
    if content is not None:
        model.root.buffers[index].data = np.frombuffer(content, np.uint8)


def _kind(weight: np.ndarray) -> tuple[int, float, float]:
    """What equal weights have in common, found without sorting."""
    return weight.size, float(np.min(weight, initial=np.inf)), float(np.max(weight, initial=-np.inf))


def _content(weight: np.ndarray) -> bytes:
    """The values of an array, without their order."""
    return np.sort(np.asarray(weight, np.float32), axis=None).tobytes()
