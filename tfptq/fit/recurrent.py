"""What calibration sees inside of LSTM operators, which show the results of all steps and nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tfptq.core.lstm import LstmWeights, previous
from tfptq.float_file.kernel import KernelUse
from tfptq.float_file.lstm_operators import GATES, STATES, lstm_operators, weights_of
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True, eq=False)
class _Lstm:
    """An LSTM operator: its weights, and the tensor indexes of what it reads, writes and keeps."""

    weights: LstmWeights
    sequence: int
    result: int
    hidden: int
    cell: int


class LstmStates:
    """Computes the states of all LSTM operators of a float file from what they read and write, batch by batch."""

    def __init__(self, model: TFLiteModel):
        self._operators = tuple(_known(model))
        self._values: dict[int, np.ndarray | None] = {}
        for each in self._operators:
            self._values |= {each.sequence: None, each.result: None}

    @property
    def cells(self) -> list[int]:
        """Tensor indexes of the cell states."""
        return [each.cell for each in self._operators]

    def observe(self, index: int, values: np.ndarray) -> None:
        """Keep the values of a tensor that is asked for."""
        if index in self._values:
            self._values[index] = values.copy()

    def flush(self, observe_hidden: Callable[[int, np.ndarray], None]) -> Iterator[tuple[int, np.ndarray]]:
        """Each cell state, and its values in all steps of the batch ``[B, T, U]``.

        ``observe_hidden`` is called with each hidden state and what it is before each step.
        """
        for each in self._operators:
            x, h = self._values[each.sequence], self._values[each.result]
            if x is not None and h is not None:
                observe_hidden(each.hidden, previous(h))
                yield each.cell, each.weights.cell_states(x, h)


def _known(model: TFLiteModel) -> Iterator[_Lstm]:
    for operator in lstm_operators(model):
        weights = weights_of(model, operator)
        if weights is not None:
            hidden, cell = (operator.inputs[at] for at in STATES)
            yield _Lstm(weights, operator.inputs[0], operator.outputs[0], hidden, cell)


@dataclass(frozen=True, eq=False)
class GateKernel:
    """A kernel of an LSTM, in a float network and in one that is being quantized.

    Attributes:
        exact: float weights.
        rounded: weights of the quantized network, as far as they are fitted.
        gate: number of the gate.
        meets_input: whether the kernel meets the input; if not, the hidden state.
    """

    exact: LstmWeights
    rounded: LstmWeights
    gate: int
    meets_input: bool

    @classmethod
    def of(cls, use: KernelUse, exact: TFLiteModel, rounded: TFLiteModel, position: int) -> "GateKernel":
        """The kernel of a use, whose operator is at a position in both networks."""
        weights = [weights_of(model, model.operators[position]) for model in (exact, rounded)]
        if weights[0] is None or weights[1] is None:
            raise ValueError("the kernels of an LSTM are no constants")
        number = use.kernel_at - 1
        return cls(weights[0], weights[1], number % len(GATES), number < len(GATES))

    def pair(self, x: np.ndarray, h: np.ndarray, x_hat: np.ndarray, h_hat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the kernel meets in the quantized network, and what it should make of it, ``[B, T, ...]``.

        A recurrent kernel, which is fitted after the one for the input, makes good what that one lacks.

        Args:
            x: what the operator reads in the float network.
            h: what it writes there.
            x_hat: what it reads in the quantized one.
            h_hat: what it writes there.
        """
        if self.meets_input:
            return x_hat, self.exact.of_input(self.gate, x)
        return previous(h_hat), self.exact.gate_inputs(self.gate, x, h) - self.rounded.of_input(self.gate, x_hat)
