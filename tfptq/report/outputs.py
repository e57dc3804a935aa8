"""Findings about the outputs of a file: constant ones, those that are noise, and parts and columns that drown."""

from collections.abc import Iterator

import keras
import numpy as np

from tfptq.base.text import counted
from tfptq.core.decibels import signal_to_noise
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.matching import layers_in_names
from tfptq.ops.table import OPERATORS
from tfptq.report.compare import ComparedOutput
from tfptq.report.layers import MOST_NAMED
from tfptq.report.outcome import Evidence
from tfptq.report.values import Finding

#: Below this signal to noise (noise of half the size of the values), an output or a column of it is of little use.
NOISY_DB = 6.0
#: An output whose power is so much more than that of its variation lies far from 0.
FAR_FROM_ZERO_DB = 12.0


def findings_on_constants(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that are the same for all samples in the float model."""
    for name, output in evidence.comparison.outputs.items():
        if evidence.outcome.samples_differ and not output.varies:
            yield Finding(
                "constant-output",
                f"the output {name!r} is {'the same' if output.expected.any() else '0'} for all samples in the float "
                "model",
                "Was the model trained, and are the samples scaled as for model.predict? Nothing shows its accuracy",
            )


def findings_on_lost_outputs(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that are the same for all samples in the file alone."""
    for name, output in evidence.comparison.outputs.items():
        if output.varies and not output.varies_in_file:
            yield Finding(
                "constant-output",
                f"the output {name!r} of the file is the same for all samples, and that of the float model is not",
                "activation_bits=16 tells whether 8-bit activations are the cause; see which layers are noisy",
            )


def findings_on_noise(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that are noise, or whose variation is."""
    for name, output in evidence.comparison.outputs.items():
        ratio = output.snr_db
        if ratio < NOISY_DB and output.expected.any():
            yield Finding(
                "noisy-output",
                f"the output {name!r} of the file has a signal to noise of {ratio:.1f} dB on calibration samples",
                "Do not use it before you know why; activation_bits=16 tells whether 8-bit activations are the cause",
            )
        elif output.varies_in_file and _is_far_from_zero(output):
            yield Finding(
                "noisy-output",
                f"what the output {name!r} of the file varies by from sample to sample has a signal to noise of "
                f"{output.varying_snr_db:.1f} dB: its values are far from 0, which 8-bit grids contain",
                "Let the model return values around 0 and shift them outside of it, or use activation_bits=16",
            )


def _is_far_from_zero(output: ComparedOutput) -> bool:
    """Whether the grid is too coarse for the variation of an output, and fine for its size."""
    return output.varies and output.varying_snr_db < min(NOISY_DB, output.snr_db - FAR_FROM_ZERO_DB)


def findings_on_parts(evidence: Evidence) -> Iterator[Finding]:
    """Parts of integer outputs that have few codes on the grid of the whole."""
    outcome = evidence.outcome
    plan, float_file = outcome.plan, outcome.float_file
    layers = _layers_of_tensors(float_file, outcome.model)
    for name, output in evidence.comparison.outputs.items():
        parts = [part for part in plan.drowned if part.output == output.tensor]
        if parts:
            least = min(part.codes for part in parts)
            named = ", ".join(layers.get(part.tensor, repr(float_file.model.name(part.tensor))) for part in parts)
            yield Finding(
                "lost-column",
                f"the output {name!r} joins {named} with values so much larger that {least:.1f} of {2**plan.bits} "
                "codes are left for the smallest part",
                "Let the model return the parts as separate outputs, or use output_type='float32', where each part "
                "keeps a grid of its own",
            )


def _layers_of_tensors(float_file: FloatFile, model: keras.Model) -> dict[int, str]:
    """Tensor index -> the layers that it is named after, in words."""
    tensors = [index for operator in float_file.model.operators for index in operator.outputs]
    layers = layers_in_names([float_file.model.name(index) for index in tensors], [it.name for it in model.layers])
    named = zip(tensors, layers, strict=True)
    return {index: f"layer {', '.join(map(repr, sorted(found)))}" for index, found in named if found}


def findings_on_columns(evidence: Evidence) -> Iterator[Finding]:
    """Columns (indexes of the last axis) that are too small for the grid that they share with larger ones.

    Not of probabilities and other results on fixed grids, which are small for reasons of their own.
    """
    plan = evidence.outcome.plan
    producers = evidence.outcome.float_file.model.producers()
    fixed = {grid for row in OPERATORS.values() for grid in row.fixed_grids.values()}
    for name, output in evidence.comparison.outputs.items():
        on_integers = producers.get(output.tensor) in plan.operators and plan.grids[output.tensor] not in fixed
        if not on_integers or output.expected.ndim < 2 or output.snr_db < NOISY_DB or _is_far_from_zero(output):
            continue
        drowned = _drowned_columns(output, plan.grids[output.tensor].scale)
        if drowned:
            listed = ", ".join(f"{column} ({ratio:.1f} dB)" for column, ratio in list(drowned.items())[:MOST_NAMED])
            more = f" and {len(drowned) - MOST_NAMED} more" if len(drowned) > MOST_NAMED else ""
            yield Finding(
                "lost-column",
                f"the output {name!r} has {counted(len(drowned), 'column')} too small for its grid beside others: "
                f"{listed}{more}",
                "Return columns of different size as separate outputs, scale them to one size in the model and back "
                "outside of it, or use activation_bits=16",
            )


def columns_db(output: ComparedOutput) -> np.ndarray:
    """float64 ``[C]``: signal to noise in dB of what each column of an output varies by, around its mean."""
    expected, found = _columns(output)
    mean = expected.mean(axis=1, keepdims=True) if expected.shape[1] > 1 else 0.0
    return np.array([signal_to_noise(*pair) for pair in zip(expected - mean, found - mean, strict=True)])


def _columns(output: ComparedOutput) -> tuple[np.ndarray, np.ndarray]:
    """float64 ``[C, values]`` of the float file and of the quantized one."""
    expected, found = (values.reshape(-1, values.shape[-1]).T for values in (output.expected, output.found))
    return expected.astype(np.float64), found.astype(np.float64)


def _drowned_columns(output: ComparedOutput, step: float) -> dict[int, float]:
    """Index of each column that rounding to the grid alone leaves below ``NOISY_DB`` -> its signal to noise in dB.

    The noise of coarse weights is none of the grid. The whole column counts, and not what it varies by: a class that
    no sample is of hardly varies, and nothing is lost.
    """
    expected, found = _columns(output)
    powers = np.square(expected).mean(axis=1)
    small = np.flatnonzero((powers > 0) & (powers < 10 ** (NOISY_DB / 10) * step**2 / 12))
    ratios = {int(at): signal_to_noise(expected[at], found[at]) for at in small}
    return {at: ratio for at, ratio in ratios.items() if ratio < NOISY_DB}
