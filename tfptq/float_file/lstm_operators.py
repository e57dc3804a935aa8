"""``UNIDIRECTIONAL_SEQUENCE_LSTM`` in a float ``.tflite``.

Its inputs, by position: the sequence ``[B, T, I]``; kernels ``[U, I]`` and recurrent kernels ``[U, U]`` of the input,
forget, cell and output gate; peepholes, which Keras does not have; biases ``[U]`` of the gates; projection, likewise;
hidden and cell state ``[B, U]``, variables that the runtime keeps between calls; layer normalization, likewise.

A layer that is not stateful starts every call from zeros. So an operator in front of each LSTM writes zeros into its
state: REVERSE_V2 of constants, which all runtimes compute at each call, and no delegate takes.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.lstm import LstmWeights
from tfptq.tflite.model import TFLiteModel

#: What the names of operators start with that stand for LSTM layers (``recurrent_layers``); the layer's path follows.
MARK = "tfptq.lstm/"
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
#: Names of the gates, in the order of the operator, which is that of Keras.
GATES = ("input", "forget", "cell", "output")
#: Positions of the hidden and of the cell state among the inputs.
STATES = (18, 19)
_INPUTS = 24
_NONE = -1


def lstm_operators(model: TFLiteModel) -> Iterator[schema.OperatorT]:
    """The LSTM operators of the main subgraph."""
    return (operator for operator in model.operators if model.operator_name(operator) == LSTM)


def write_marked(data: bytes) -> bytes | None:
    """A file with LSTM operators in the place of those that ``recurrent_layers`` has left.

    None where other custom operators are left, or marked ones inside of loops.
    """
    model = TFLiteModel(data)
    weights: dict[tuple[int, ...], list[int]] = {}  # a layer that is called twice has one set of them
    for at, operator in enumerate(model.operators):
        name = _custom_name(model, operator)
        if name.startswith(MARK):
            path, constants = name.removeprefix(MARK), tuple(operator.inputs[1:])
            if constants not in weights:
                weights[constants] = _weights(model, path, constants)
            model.operators[at] = _lstm(model, operator, path, weights[constants])
    model.remove_unused()
    if any(_custom_name(model, operator) for subgraph in model.root.subgraphs for operator in subgraph.operators):
        return None
    return model.to_bytes()


def reset_states(model: TFLiteModel) -> None:
    """Let each call start from zeros, in place: states that nothing writes get an operator that does."""
    written = model.producers()
    operators: list[schema.OperatorT] = []
    for operator in model.operators:
        if model.operator_name(operator) == LSTM:
            states = [operator.inputs[at] for at in STATES if operator.inputs[at] not in written]
            operators += [_reset(model, state) for state in states]
        operators.append(operator)
    model.operators[:] = operators


def drop_starts(model: TFLiteModel, states: Collection[int]) -> None:
    """Let some states last from call to call, in place: nothing writes them but their operators."""
    model.operators[:] = [each for each in model.operators if not set(states).intersection(each.outputs)]


def _custom_name(model: TFLiteModel, operator: schema.OperatorT) -> str:
    name = model.root.operatorCodes[operator.opcodeIndex].customCode
    return name.decode() if isinstance(name, bytes) else name or ""


def _weights(model: TFLiteModel, path: str, constants: Sequence[int]) -> list[int]:
    """Kernels, recurrent kernels and biases of the gates, of ``[I, 4U]``, ``[U, 4U]`` and ``[4U]``."""
    return [
        model.add_constant(f"{path}/{gate}/{name}", part.T)
        for name, index in zip(("kernel", "recurrent_kernel", "bias"), constants, strict=True)
        for gate, part in zip(GATES, np.split(model.constant(index), 4, axis=-1), strict=True)
    ]


def _lstm(model: TFLiteModel, marked: schema.OperatorT, path: str, weights: Sequence[int]) -> schema.OperatorT:
    """The operator for a marked one."""
    sequence, result = marked.inputs[0], marked.outputs[0]
    if result not in model.subgraph.outputs:
        model.tensors[result].name = model.unique_name(f"{path}/lstm")
    shape = model.shape(sequence)[0], model.shape(result)[-1]
    states = [_state(model, f"{path}/{name}", shape) for name in ("hidden_state", "cell_state")]
    inputs = [sequence, *weights[:8], *[_NONE] * 3, *weights[8:], *[_NONE] * 2, *states]
    inputs += [_NONE] * (_INPUTS - len(inputs))
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    return model.new_operator(LSTM, inputs, [result], options=options)


def _state(model: TFLiteModel, name: str, shape: tuple[int, int]) -> int:
    tensor = schema.TensorT(name=model.unique_name(name), type=schema.TensorType.FLOAT32, buffer=0, isVariable=True)
    tensor.shape, tensor.hasRank = np.asarray(shape, np.int32), True
    model.tensors.append(tensor)
    return len(model.tensors) - 1


def _reset(model: TFLiteModel, state: int) -> schema.OperatorT:
    zeros = model.shared_constant(f"{model.name(state)}/zeros", np.zeros(model.shape(state), np.float32))
    axis = model.shared_constant("lstm/axis", np.zeros(1, np.int32))
    return model.new_operator("REVERSE_V2", [zeros, axis], [state], options=schema.ReverseV2OptionsT())


def weights_of(model: TFLiteModel, operator: schema.OperatorT) -> LstmWeights | None:
    """The weights of an LSTM operator as they are now; None for another one than Keras has."""
    spec = model.spec(operator)
    constants = [operator.inputs[at] for place in spec.kernels for at in (place.kernel, place.bias)]
    if spec.reason_to_stay_float(model, operator, 8) is not None or not all(map(model.is_constant, constants)):
        return None
    kernels = np.stack([model.constant(operator.inputs[place.kernel]) for place in spec.kernels[:4]])
    recurrent = np.stack([model.constant(operator.inputs[place.kernel]) for place in spec.kernels[4:]])
    biases = np.stack([model.constant(operator.inputs[place.bias]) for place in spec.kernels[:4]])
    return LstmWeights(kernels, recurrent, biases, operator.builtinOptions.cellClip)
