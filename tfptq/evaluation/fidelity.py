"""How close outputs of a file are to those of the float model, whatever the labels are.

One column of scores is read as probabilities or as logits, which depends on all of its values (``classes.decisions``).
Sums over a part of the samples are therefore kept for each way to read it, until all samples are known.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tfptq.core.decibels import decibels, powers
from tfptq.evaluation.classes import are_probabilities, decisions
from tfptq.evaluation.moments import Moments


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


#: Whether the column of the file and that of the float model are probabilities; None of outputs of several columns.
Reading = tuple[bool | None, bool | None]


@dataclass(frozen=True)
class OutputSums:
    """One output on some samples; ``a + b`` is the same on the samples of both.

    Attributes:
        probabilities: whether all values of the file, and all of the float model, can be probabilities; None of outputs
            of several columns, and without the model.
        powers: signal and noise; zeros without a float model.
        agreement: how the columns are read -> decisions that are the same; empty without a float model.
    """

    probabilities: Reading
    powers: tuple[float, float] = (0.0, 0.0)
    agreement: Mapping[Reading, Moments] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, found: np.ndarray, expected: np.ndarray | None) -> "OutputSums":
        """Of an output ``[samples, ...]`` of the file and of the float model."""
        own = _can_be_probabilities(found)
        if expected is None:
            return cls((own, None))
        _check_shapes(name, expected, found)
        signal, noise = powers(expected.astype(np.float64), found.astype(np.float64))
        probabilities = own, _can_be_probabilities(expected)
        agreement = {}
        for reading in readings(probabilities):
            same = decisions(expected, reading[1]) == decisions(found, reading[0])
            agreement[reading] = Moments.of(same.reshape(len(found), -1).mean(axis=1))
        return cls(probabilities, (float(signal), float(noise)), agreement)

    def __add__(self, other: "OutputSums") -> "OutputSums":
        one, another = (
            None if mine is None or its is None else mine and its
            for mine, its in zip(self.probabilities, other.probabilities, strict=True)
        )
        signal, noise = (mine + its for mine, its in zip(self.powers, other.powers, strict=True))
        return OutputSums((one, another), (signal, noise), added(self.agreement, other.agreement))

    def fidelity(self, name: str) -> Fidelity | None:
        """The output against the float model; None without one."""
        if not self.agreement:
            return None
        ratio = decibels(*self.powers)
        if self.probabilities[1] is False:
            return Fidelity(name, ratio)
        same = self.agreement[self.probabilities]
        return Fidelity(name, ratio, same.mean, same.standard_error)


def fidelity(output: str, expected: np.ndarray, found: np.ndarray) -> Fidelity:
    """Compare an output ``[samples, ...]`` of a file with that of the float model.

    Raises:
        ValueError: they have different shapes.
    """
    result = OutputSums.of(output, found, expected).fidelity(output)
    assert result is not None  # there is a float model
    return result


def readings(probabilities: Reading) -> list[Reading]:
    """All ways to read columns of which some values are known."""
    one, another = ((None,) if kind is None else (True, False) for kind in probabilities)
    return list(itertools.product(one, another))


def _can_be_probabilities(values: np.ndarray) -> bool | None:
    """Whether all values of a column can be probabilities; None of several columns and of integers."""
    if values.dtype.kind != "f" or (values.ndim > 1 and values.shape[-1] > 1):
        return None
    return are_probabilities(values)


def added(some: Mapping, others: Mapping) -> dict:
    """Sums of the values with the same key."""
    return {key: value + others[key] for key, value in some.items()}


def _check_shapes(output: str, expected: np.ndarray, found: np.ndarray) -> None:
    """Raise a ValueError if an output of the float model and that of a file have different shapes."""
    if expected.shape != found.shape:
        raise ValueError(
            f"the output {output!r} of the file has the shape {list(found.shape)}, and that of the float model "
            f"{list(expected.shape)}: it is another model"
        )
