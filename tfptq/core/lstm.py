"""What happens inside of an LSTM over whole sequences, once its results are known.

With the sequence ``x[B, T, I]`` and the results ``h[B, T, U]``, starting from zeros::

    gate g:  a_g[t] = W_g x[t] + R_g h[t-1] + b_g
    cell:    c[t] = sigmoid(a_forget[t]) c[t-1] + sigmoid(a_input[t]) tanh(a_cell[t])

Only the cell states need a loop over time. Source: Hochreiter and Schmidhuber, Long short-term memory (1997), with the
forget gate of Gers et al. (2000).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class LstmWeights:
    """Weights of the input, forget, cell and output gate, in this order.

    Attributes:
        kernels: float32 ``[4, U, I]``.
        recurrent: float32 ``[4, U, U]``.
        biases: float32 ``[4, U]``.
        clip: largest magnitude of a cell state; 0 for any.
    """

    kernels: np.ndarray
    recurrent: np.ndarray
    biases: np.ndarray
    clip: float = 0.0

    def of_input(self, gate: int, x: np.ndarray) -> np.ndarray:
        """The part ``W_g x + b_g`` of the input of a gate's function, ``[B, T, U]``."""
        return x @ self.kernels[gate].T + self.biases[gate]

    def gate_inputs(self, gate: int, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        """``a_g[B, T, U]``."""
        return self.of_input(gate, x) + previous(h) @ self.recurrent[gate].T

    def cell_states(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        """``c[B, T, U]``."""
        added, kept, proposed = (self.gate_inputs(gate, x, h) for gate in range(3))
        added, kept = _sigmoid(added) * np.tanh(proposed), _sigmoid(kept)
        states = np.empty_like(added)
        state = np.zeros_like(added[:, 0])
        for step in range(states.shape[1]):
            state = kept[:, step] * state + added[:, step]
            state = state.clip(-self.clip, self.clip) if self.clip else state
            states[:, step] = state
        return states


def previous(h: np.ndarray) -> np.ndarray:
    """``h[t-1]`` for each ``t`` of ``h[B, T, U]``: zeros at first."""
    return np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * values))
