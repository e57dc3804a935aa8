"""Run a file on LiteRT's reference kernels, with every tensor kept."""

import re

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfptq.base.quiet import quiet
from tfptq.tflite.interface import InterfaceRow, read_interface
from tfptq.tflite.model_reader import read_model


def run_reference_kernels(file: bytes, inputs) -> Interpreter:
    """An interpreter that has run the file; ``get_tensor`` of it gives what any tensor holds.

    ``inputs`` are an array, arrays in the order of the file's inputs, or a dict by the names in its signature.

    Raises:
        ValueError: ``inputs`` do not fit the file, or the stock runtime has no reference kernel for an operator.
    """
    arrays = _checked_inputs(inputs, [row for row in read_interface(read_model(file)) if row.end == "input"])
    interpreter = _reference_interpreter(file)
    _invoke(interpreter, arrays)
    return interpreter


def _reference_interpreter(file: bytes) -> Interpreter:
    try:
        with quiet():
            return Interpreter(
                model_content=file,
                experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
                experimental_preserve_all_tensors=True,
            )
    except ValueError as error:
        missing = re.search(r"Didn't find op for builtin opcode '(\w+)'", str(error))
        if missing is None:
            raise
        raise ValueError(
            f"the stock runtime has no reference kernel for {missing[1]}, which the file holds, so that there is "
            "nothing to compare its layers with. Executor(file).run_layer runs them without; to compare them, "
            f"quantize the model with another operator in the place of {missing[1]}"
        ) from error


def _checked_inputs(inputs, rows: list[InterfaceRow]) -> list[np.ndarray]:
    names = [row.name for row in rows]
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(f"inputs are named {sorted(inputs)}; the file has {sorted(names)}")
        inputs = [inputs[name] for name in names]
    arrays = [np.asarray(array) for array in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
    if len(arrays) != len(rows):
        raise ValueError(f"there are {len(arrays)} inputs; the file has {len(rows)}: {', '.join(names)}")
    for row, array in zip(rows, arrays, strict=True):
        free = [True, *(size is None for size in row.shape[1:])]  # any number of samples
        fits = array.ndim == len(row.shape) and all(
            anything or found == size for anything, found, size in zip(free, array.shape, row.shape, strict=True)
        )
        if not fits or array.dtype != row.dtype:
            raise ValueError(
                f"input {row.name!r}: found {array.dtype} of shape {array.shape}; the file takes {row.dtype} of shape "
                f"({', '.join(map(str, ('N', *row.shape[1:])))})"
            )
    return arrays


def _invoke(interpreter: Interpreter, arrays: list[np.ndarray]) -> None:
    details = interpreter.get_input_details()
    for detail, values in zip(details, arrays, strict=True):
        interpreter.resize_tensor_input(detail["index"], values.shape)
    with quiet():
        interpreter.allocate_tensors()
    for detail, values in zip(details, arrays, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
