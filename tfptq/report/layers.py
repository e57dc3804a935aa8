"""Findings about layers: dead ones, and those whose output is mostly noise."""

from collections.abc import Iterator, Sequence

from tfptq.base.text import counted
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.report.compare import ComparedLayer
from tfptq.report.outcome import Evidence
from tfptq.report.values import Finding, LayerReport

#: Below this signal to noise (noise of a third of the size of the values), a layer is worth a warning, unless no output
#: of the model suffers: all are above ``UNHARMED_DB``, and the layer is above ``NOISE_DB``.
NOISY_DB, NOISE_DB, UNHARMED_DB = 10.0, 6.0, 20.0
#: Weights that are so exact are not why a layer's output is below ``NOISY_DB``.
FINE_WEIGHTS_DB = 24.0
#: With fewer samples, more of them are the first thing to try.
TYPICAL_SAMPLES = 128
#: A finding names so many layers or columns.
MOST_NAMED = 8


def findings_on_zeros(evidence: Evidence) -> Iterator[Finding]:
    """Layers without weights, in the model or in the file."""
    outcome = evidence.outcome
    for kernel in outcome.kernels:
        if not outcome.weights.get(kernel.id, kernel.values).any():
            yield Finding("dead-layer", f"all weights of layer {kernel.id.label!r} are 0", "Was the model trained?")
        elif not kernel.weight.codes.any():
            yield Finding(
                "dead-layer",
                f"all codes of layer {kernel.id.label!r} are 0 although its weights are not: beside its bias, what it "
                "makes of its input is too small for integers, so that the layer is constant in the file",
                "Are the calibration samples typical? skip=True by an override leaves it in float",
            )


def findings_on_dead_layers(evidence: Evidence) -> Iterator[Finding]:
    """Layers whose outputs are the same for all samples in the float model already."""
    pairs = _compared_layers(evidence) if evidence.outcome.samples_differ else []
    dead = [label for label, found in pairs if not any(it.varies for it in found)]
    if dead:
        yield Finding(
            "dead-layer",
            f"{_named(dead)} the same output for all samples in the float model: dead, or without the part of the "
            "input that the samples leave out",
            "Check the weights and ReLUs there, and that the samples are scaled as in training",
        )


def findings_on_lost_layers(evidence: Evidence) -> Iterator[Finding]:
    """Layers whose outputs are the same for all samples in the file alone."""
    pairs = _compared_layers(evidence)
    lost = [label for label, found in pairs if any(it.varies and not it.varies_in_file for it in found)]
    if lost:
        yield Finding(
            "dead-layer",
            f"{_named(lost)} the same output for all samples in the file, but not in the float model",
            "activation_bits=16 makes its grid finer; skip=True by an override leaves it in float",
        )


def _compared_layers(evidence: Evidence) -> list[tuple[str, list[ComparedLayer]]]:
    """Name of each layer that has codes other than 0 (of the others, see above), and what was found of its results."""
    kernels = [kernel for kernel in evidence.outcome.kernels if kernel.weight.codes.any()]
    pairs = [(kernel.id.label, _compared(evidence, kernel)) for kernel in kernels]
    return [(label, found) for label, found in pairs if found]


def _compared(evidence: Evidence, kernel: QuantizedKernel) -> list[ComparedLayer]:
    layers = evidence.comparison.layers
    return [layers[use.output] for use in kernel.uses if use.output in layers]


def findings_on_noise(evidence: Evidence) -> Iterator[Finding]:
    """Noisy layers that vary in the file, with what to try for the worst one."""
    unharmed = all(output.snr_db > UNHARMED_DB for output in evidence.comparison.outputs.values())
    least = NOISE_DB if unharmed else NOISY_DB
    measured = [
        (layer.measured_db, layer)
        for kernel, layer in zip(evidence.outcome.kernels, evidence.layers, strict=True)
        if layer.measured_db is not None and all(it.varies_in_file for it in _compared(evidence, kernel))
    ]
    noisy = sorted(((ratio, layer) for ratio, layer in measured if ratio < least), key=lambda pair: pair[0])
    if noisy:
        ratio, worst = noisy[0]
        others = f", and those of {len(noisy) - 1} more below {least:g} dB" if len(noisy) > 1 else ""
        yield Finding(
            "noisy-layers",
            f"the output of layer {worst.name!r} has a signal to noise of {ratio:.1f} dB{others}",
            _cure(worst, evidence.outcome.num_samples),
        )


def _cure(layer: LayerReport, samples: int) -> str:
    more = "more samples, " if samples < TYPICAL_SAMPLES else ""
    if layer.weight_snr_db > FINE_WEIGHTS_DB:
        return (
            "Its weights are fine, so that most of the noise comes from the rounding of activations: try "
            f"{more}activation_bits=16, or skip=True by an override for the worst layers"
        )
    finer = "weight_bits=8 by an override, the preset w8a8_channel" if layer.bits < 8 else "the preset w8a8_channel"
    return f"Its weights have {layer.weight_snr_db:.0f} dB: try {more}{finer}, or skip=True for the worst layers"


def _named(layers: Sequence[str]) -> str:
    """Subject of a sentence: ``"layer 'a' has"`` or ``"2 layers ('a', 'b') have"``."""
    if len(layers) == 1:
        return f"layer {layers[0]!r} has"
    more = f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else ""
    return f"{counted(len(layers), 'layer')} ({', '.join(map(repr, layers[:MOST_NAMED]))}{more}) have"
