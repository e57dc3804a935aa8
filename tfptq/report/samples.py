"""Findings about the calibration samples: too few, all the same, or of another range than the model was trained on.

Whether the range is right is judged by what is closest to an input: the statistics of a normalization, a constant
factor, else functions that saturate and outputs that hardly vary.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tfptq.base.text import counted
from tfptq.core.ranges import TensorStatistics
from tfptq.graph import InputStatistics, input_factors, input_statistics
from tfptq.ops.table import FUSED_FUNCTIONS
from tfptq.report.outcome import Evidence, Outcome, Samples
from tfptq.report.preprocessing import CORRECTIONS, divergence
from tfptq.report.values import Finding

#: Kind of the findings about ranges.
WRONG_RANGE = "input-range"
#: With fewer calibration samples, the report warns.
FEWEST_SAMPLES = 16
#: Divergences from training. Trained networks have up to 0.13 on samples as in training, and 0.3 or more on others.
FITS, MISFITS = 0.25, 1.0
#: A correction must bring the divergence down to this share.
BETTER = 0.25
#: What is scaled in front of a network has magnitudes up to 1 behind it, give or take this factor.
SCALED_BY = 100.0
#: Share of the samples whose probabilities are all 0 and 1.
CERTAIN = 0.5
#: Largest magnitude of pixels in 0..1 that were divided by 255, and what they leave of the outputs' variation, in dB.
TINY, HARDLY_DB = 0.05, -15.0


@dataclass(frozen=True)
class Saturation:
    """Ends of a function, None for one that is not reached by saturation, and the share of values there that is bad."""

    low: float | None
    high: float
    share: float


SATURATIONS = {
    "RELU6": Saturation(None, 6.0, 0.5),
    "RELU_N1_TO_1": Saturation(-1.0, 1.0, 0.9),
    "TANH": Saturation(-1.0, 1.0, 0.9),
    "LOGISTIC": Saturation(0.0, 1.0, 0.9),
}
_TOO_LARGE = (
    "The calibration samples are likely too large: scale them as in training, such as pixels from 0..255 to 0..1"
)


def findings_on_numbers(evidence: Evidence) -> Iterator[Finding]:
    """Too few samples, or all the same."""
    outcome = evidence.outcome
    if outcome.num_samples < FEWEST_SAMPLES:
        found = counted(outcome.num_samples, "sample")
        yield Finding("samples", f"calibration saw only {found}", "Give a few hundred typical ones")
    if not outcome.samples_differ and len(next(iter(outcome.samples.values()))) > 1:
        yield Finding("samples", "the first calibration samples are all the same", "Give a few hundred typical ones")


def findings_on_channels(evidence: Evidence) -> Iterator[Finding]:
    """Channels of inputs that would have to be normalized in float, in front of the first grid."""
    kind = evidence.outcome.config.interface_types[0]
    for name in evidence.outcome.coarse_inputs:
        yield Finding(
            "lost-column",
            f"the channels (columns) of input {name!r} differ too much in size for one {kind} grid and for the weights "
            "that read them",
            "Keep input_type='float32', or normalize the samples before the model",
        )


def findings_on_range(evidence: Evidence) -> Iterator[Finding]:
    """Samples of another range than in training, by the first rule that can judge an input."""
    outcome = evidence.outcome
    known = [] if outcome.original is None else input_statistics(outcome.original)
    batches = list(outcome.batches) if known else []
    for statistics in known:
        yield from _unlike_training(statistics, batches, enough=outcome.num_samples >= FEWEST_SAMPLES)
    factors = {} if outcome.original is None else input_factors(outcome.original)
    for name in factors.keys() - {each.input for each in known}:
        yield from _wrongly_scaled(name, factors[name], outcome.samples[name])
    if not (known or factors):
        yield from itertools.islice(itertools.chain(_saturated(evidence), _too_certain(evidence), _tiny(evidence)), 1)


def _unlike_training(known: InputStatistics, batches: Iterable[Samples], enough: bool) -> Iterator[Finding]:
    """Samples that a normalization has not seen the like of; few of them must come with a correction to be blamed."""
    found = divergence(known, batches)
    if found <= FITS:
        return
    problem = (
        f"the calibration samples are not like those of training: what layer {known.layer!r} reads of input "
        f"{known.input!r} does not have the mean and variance that the layer has stored"
    )
    left = {correction: divergence(known, batches, correction) for correction in CORRECTIONS}
    best = min(left, key=lambda correction: left[correction])
    if left[best] < min(FITS, BETTER * found):
        yield Finding(WRONG_RANGE, problem, f"With another range they fit: {best.advice}")
    elif found > MISFITS and enough:
        yield Finding(WRONG_RANGE, problem, "Preprocess them as for model.predict, and take typical ones")


def _wrongly_scaled(name: str, factor: float, samples: np.ndarray) -> Iterator[Finding]:
    """Samples that a constant factor brings far away from magnitudes of 1."""
    expected, largest = max(1.0, 1.0 / factor), float(np.abs(samples).max(initial=0.0))
    if largest and not expected / SCALED_BY <= largest <= expected * SCALED_BY:
        yield Finding(
            WRONG_RANGE,
            f"the model multiplies input {name!r} by {factor:.3g}, as for values up to about {expected:.3g}, and the "
            f"calibration samples go up to {largest:.3g}",
            "Give them as for model.predict, scaled neither twice nor not at all",
        )


def _saturated(evidence: Evidence) -> Iterator[Finding]:
    """Samples so large that the first function with an end cuts them off."""
    outcome = evidence.outcome
    file = outcome.float_file.model
    for operator in file.operators:
        fused = FUSED_FUNCTIONS.get(getattr(operator.builtinOptions, "fusedActivationFunction", 0))
        function = file.operator_name(operator) if fused is None else fused.name
        statistics = outcome.statistics.get(operator.outputs[0])
        if function in SATURATIONS and statistics and operator.outputs[0] not in file.subgraph.outputs:
            share = _share_at_the_ends(statistics, SATURATIONS[function])
            if share > SATURATIONS[function].share:
                where = _named(outcome, operator.outputs[0])
                yield Finding(WRONG_RANGE, f"{share:.0%} of the values behind {where} are saturated", _TOO_LARGE)
            return


def _named(outcome: Outcome, tensor: int) -> str:
    """The layer whose kernel writes a tensor, or the tensor itself."""
    layers = [kernel.id.label for kernel in outcome.kernels for use in kernel.uses if use.output == tensor]
    return f"layer {layers[0]!r}" if layers else repr(outcome.float_file.model.name(tensor))


def _share_at_the_ends(statistics: TensorStatistics, ends: Saturation) -> float:
    """Share of the values within 1 % of an end; of those other than 0 where the lower end is none."""
    histogram = statistics.histogram
    if histogram is None:
        return 0.0
    low, high = (-np.inf, ends.high) if ends.low is None else (ends.low, ends.high)
    near = 0.01 * (ends.high - (ends.low or 0.0))
    at_ends = (histogram.edges[1:] <= low + near) | (histogram.edges[:-1] >= high - near)
    others = histogram.zeros if ends.low is None else 0
    return float(histogram.counts[at_ends].sum() / max(histogram.total - others, 1))


def _too_certain(evidence: Evidence) -> Iterator[Finding]:
    """Samples so large that each has one probability of 1 and nothing but 0 beside it, as float32 has it."""
    file = evidence.outcome.float_file.model
    producers = file.producers()
    for name, output in evidence.comparison.outputs.items():
        at = producers.get(output.tensor)
        if at is None or file.operator_name(file.operators[at]) != "SOFTMAX" or output.expected.shape[-1] < 2:
            continue
        ordered = np.sort(output.expected.reshape(-1, output.expected.shape[-1]), axis=-1)
        share = float(np.mean((ordered[:, -1] == 1.0) & (ordered[:, -2] < np.finfo(np.float32).tiny)))
        if share > CERTAIN:
            problem = f"for {share:.0%} of the samples, the probabilities of output {name!r} are exactly 0 and 1"
            yield Finding(WRONG_RANGE, problem, _TOO_LARGE)


def _tiny(evidence: Evidence) -> Iterator[Finding]:
    """Samples so small that the outputs hardly depend on them."""
    largest = max(float(np.abs(values).max(initial=0.0)) for values in evidence.outcome.samples.values())
    outputs = [output for output in evidence.comparison.outputs.values() if output.varies]
    if outputs and 0.0 < largest < TINY and all(output.variation_db < HARDLY_DB for output in outputs):
        yield Finding(
            WRONG_RANGE,
            f"the calibration samples go up to {largest:.2g} only, and the outputs of the model hardly vary",
            "Scale them as in training: pixels in 0..1 must not be divided by 255 again",
        )
