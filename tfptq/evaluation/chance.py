"""Detect labels that do not fit the model: even the float model is no better than chance."""

import math

import numpy as np

from tfptq.evaluation.classes import decisions

#: Fewer samples or classes tell nothing.
FEWEST_SAMPLES, FEWEST_CLASSES = 20, 3
#: Standard errors above chance from which on a model is better than that.
ERRORS_ABOVE = 3.0
#: Shifted labels are named where the model is right on at least this share with them.
SHARE_IF_SHIFTED = 0.3


def doubt_about_labels(labels: np.ndarray, expected: np.ndarray) -> str | None:
    """A warning if the accuracy of the float model is no better than chance, else None.

    Args:
        labels: class of each sample, integers ``[samples]`` or ``[samples, 1]``; others are not looked at.
        expected: scores of the float model, ``[samples, classes]``.
    """
    if expected.ndim != 2 or expected.dtype.kind != "f" or labels.size != len(expected):
        return None
    count, classes = expected.shape
    if count < FEWEST_SAMPLES or classes < FEWEST_CLASSES:
        return None
    decided, true, chance = decisions(expected), labels.reshape(-1), 1.0 / classes
    right = float(np.mean(decided == true))
    if right > chance + ERRORS_ABOVE * math.sqrt(chance * (1.0 - chance) / count):
        return None
    shifted = {shift: float(np.mean(decided == true + shift)) for shift in (1, -1)}
    shift = max(shifted, key=lambda it: shifted[it])
    hint = (
        f"; with labels {'+' if shift > 0 else '-'} 1 it would be {100 * shifted[shift]:.1f} %"
        if shifted[shift] >= SHARE_IF_SHIFTED
        else ", and that samples are preprocessed as the model expects"
    )
    return (
        f"the float model is right on {100 * right:.1f} % of {count} samples, with {classes:,} classes no more than by "
        f"chance: check that labels count classes as its outputs do{hint}"
    )
