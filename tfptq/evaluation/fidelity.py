"""How near outputs of a file are to those of the float model, whatever the labels say."""

from dataclasses import dataclass

import numpy as np

from tfptq.core.decibels import signal_to_noise
from tfptq.evaluation.classes import are_probabilities, decisions
from tfptq.evaluation.metrics import standard_error


@dataclass(frozen=True)
class Fidelity:
    """One output of a file against the float model.

    Attributes:
        output: its name in the file.
        snr_db: signal to noise in dB.
        agreement: share of decisions that are the same (the largest of several columns, or the side of one half of a
            column of probabilities); None of outputs without decisions.
        agreement_error: standard error of it, or None of a single sample.
    """

    output: str
    snr_db: float
    agreement: float | None = None
    agreement_error: float | None = None


def fidelity(output: str, expected: np.ndarray, found: np.ndarray) -> Fidelity:
    """Compare an output ``[samples, ...]`` of a file with that of the float model.

    Raises:
        ValueError: they have different shapes.
    """
    check_shapes(output, expected, found)
    ratio = signal_to_noise(expected.astype(np.float64), found.astype(np.float64))
    columns = expected.shape[-1] if expected.ndim > 1 else 1
    if expected.dtype.kind == "f" and columns == 1 and not are_probabilities(expected):
        return Fidelity(output, ratio)
    same = (decisions(expected) == decisions(found)).reshape(len(found), -1).mean(axis=1)
    return Fidelity(output, ratio, float(same.mean()), standard_error(same))


def check_shapes(output: str, expected: np.ndarray, found: np.ndarray) -> None:
    """Raise a ValueError if an output of the float model and that of a file have different shapes."""
    if expected.shape != found.shape:
        raise ValueError(
            f"the output {output!r} of the file has the shape {list(found.shape)}, and that of the float model "
            f"{list(expected.shape)}: it is another model"
        )
