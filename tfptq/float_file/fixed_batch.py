"""Fix the open batch of a float ``.tflite`` at one sample, so that nothing in it computes shapes."""

from dataclasses import replace

import numpy as np

from tfptq.float_file.file_model import FileModel, of_file
from tfptq.tflite.model import NUMPY_TYPES, TFLiteModel
from tfptq.tflite.runtime import TensorRunner


def with_batch_of_one(model: FileModel) -> FileModel:
    """The same network for one sample at a time; a file with a batch of its own stays as it is."""
    if model.float_file.batch_size is not None:
        return model
    file = TFLiteModel(model.float_file.data)
    fix_batch(file)
    by_name = {each.name: replace(each, shape=(1, *each.shape[1:])) for each in model.inputs}
    in_file = tuple(by_name[name] for name in model.float_file.inputs)
    found = of_file(model.name, file, in_file, model.run, model.reason)
    return replace(found, inputs=tuple(by_name[each.name] for each in model.inputs))


def fix_batch(model: TFLiteModel) -> None:
    """Give all tensors the shapes that they have for one sample, in place; what is made of shapes becomes constant."""
    inputs: dict[str, np.ndarray] = {
        model.name(index): np.zeros(model.shape(index), NUMPY_TYPES[model.tensors[index].type])
        for index in model.subgraph.inputs
    }
    written = [index for operator in model.operators for index in operator.outputs]
    values = TensorRunner(model, written).values(inputs)
    known = {index for index in range(len(model.tensors)) if model.is_constant(index)}
    kept = []
    for operator in model.operators:
        read = {index for index in operator.inputs if index >= 0}
        fixed = read and known.issuperset(read) and not any(map(model.is_state, operator.outputs))
        if model.spec(operator).reads_shape or fixed:
            known.update(operator.outputs)
            for index in operator.outputs:
                _become_constant(model, index, values[index])
        else:
            kept.append(operator)
    model.operators[:] = kept
    for index in (*model.subgraph.inputs, *written):
        tensor = model.tensors[index]
        tensor.shapeSignature = None
        if index in values:
            tensor.shape = list(values[index].shape)
    model.remove_unused()


def _become_constant(model: TFLiteModel, index: int, values: np.ndarray) -> None:
    model.tensors[index].buffer = model.add_buffer(values)
    model.tensors[index].shape = list(values.shape)
