"""Warnings about the outputs of a file: whole ones that are noise, and parts and columns that drown beside others."""

from collections.abc import Iterator, Mapping

import keras
import numpy as np

from tfptq.base.text import counted
from tfptq.core.decibels import signal_to_noise
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.matching import layers_in_names
from tfptq.lowering.plan import IntegerPlan
from tfptq.ops.table import OPERATORS
from tfptq.report.compare import Pair

#: Below this signal to noise (noise of half the size of the values), the report warns.
NOISY_DB = 6.0
#: An output whose power is so much more than that of its variation lies far from 0.
FAR_FROM_ZERO_DB = 12.0
#: A warning names so many columns.
MOST_NAMED = 8


def warnings_of_outputs(outputs: Mapping[str, Pair]) -> Iterator[str]:
    """Warn of outputs that are noise, or whose variation is."""
    for name, (expected, found) in outputs.items():
        ratio = varying = signal_to_noise(expected, found)
        if expected.ndim and len(expected) > 1 and np.ptp(expected, axis=0).any():
            mean = expected.mean(axis=0, dtype=np.float64)
            varying = signal_to_noise(expected - mean, found - mean)
        if ratio < NOISY_DB:
            yield (
                f"the output {name!r} of the file has a signal to noise of {ratio:.1f} dB on calibration samples; do "
                "not use it before you know why. activation_bits=16 tells whether 8-bit activations are the cause"
            )
        elif varying < min(NOISY_DB, ratio - FAR_FROM_ZERO_DB):
            yield (
                f"what the output {name!r} of the file varies by from sample to sample has a signal to noise of "
                f"{varying:.1f} dB: its values are far from 0, which 8-bit grids contain. Let the model return values "
                "around 0 and shift them outside of it, or use activation_bits=16"
            )


def warnings_of_parts(
    float_file: FloatFile, plan: IntegerPlan, model: keras.Model, outputs: Mapping[str, int]
) -> Iterator[str]:
    """Warn of parts of integer outputs that have few codes on the grid of the whole.

    Args:
        float_file: float model.
        plan: knows the parts.
        model: the Keras model, whose layers are named.
        outputs: name in the signature -> tensor index in the float file.
    """
    layers = _layers_of_tensors(float_file, model)
    for name, output in outputs.items():
        parts = [part for part in plan.drowned if part.output == output]
        if parts:
            least = min(part.codes for part in parts)
            named = ", ".join(layers.get(part.tensor, repr(float_file.model.name(part.tensor))) for part in parts)
            yield (
                f"the output {name!r} joins {named} with values so much larger that {least:.1f} "
                f"of {2**plan.bits} codes are left for the smallest part. Let the model return the parts as separate "
                "outputs, or use output_type='float32', where each part keeps a grid of its own"
            )


def _layers_of_tensors(float_file: FloatFile, model: keras.Model) -> dict[int, str]:
    """Tensor index -> the layers that it is named after, in words."""
    tensors = [index for operator in float_file.model.operators for index in operator.outputs]
    layers = layers_in_names([float_file.model.name(index) for index in tensors], [it.name for it in model.layers])
    named = zip(tensors, layers, strict=True)
    return {index: f"layer {', '.join(map(repr, sorted(found)))}" for index, found in named if found}


def warnings_of_columns(
    float_file: FloatFile, plan: IntegerPlan, outputs: Mapping[str, int], values: Mapping[str, Pair]
) -> Iterator[str]:
    """Warn of columns (indexes of the last axis) that drown beside larger ones on the grid of their output.

    Not of probabilities and other results on fixed grids, which are small for reasons of their own.
    """
    producers, fixed = (
        float_file.model.producers(),
        {grid for row in OPERATORS.values() for grid in row.fixed_grids.values()},
    )
    for name, output in outputs.items():
        expected, found = values[name]
        on_integers = producers.get(output) in plan.operators and plan.grids[output] not in fixed
        if not on_integers or expected.ndim < 2 or signal_to_noise(expected, found) < NOISY_DB:
            continue
        drowned = _drowned_columns(expected, found, plan.grids[output].scale)
        if drowned:
            listed = ", ".join(f"{column} ({ratio:.1f} dB)" for column, ratio in list(drowned.items())[:MOST_NAMED])
            more = f" and {len(drowned) - MOST_NAMED} more" if len(drowned) > MOST_NAMED else ""
            yield (
                f"the output {name!r} has {counted(len(drowned), 'column')} too small for its grid beside others: "
                f"{listed}{more}. Return columns of different size as separate outputs, scale them to one size in the "
                "model and back outside of it, or use activation_bits=16"
            )


def _drowned_columns(expected: np.ndarray, found: np.ndarray, step: float) -> dict[int, float]:
    """Index of each column that rounding to the grid alone leaves below ``NOISY_DB`` -> its signal to noise in dB.

    The noise of coarse weights is none of the grid.
    """
    expected, found = (values.reshape(-1, values.shape[-1]).T.astype(np.float64) for values in (expected, found))
    powers = np.square(expected).mean(axis=1)
    small = np.flatnonzero((powers > 0) & (powers < 10 ** (NOISY_DB / 10) * step**2 / 12))
    ratios = {int(at): signal_to_noise(expected[at], found[at]) for at in small}
    return {at: ratio for at, ratio in ratios.items() if ratio < NOISY_DB}
