"""What is wrong with a result: rules that look at what calibration and the comparison with the float model saw."""

from collections.abc import Callable, Iterator

from tfptq.report import layers, outputs, samples
from tfptq.report.outcome import Evidence
from tfptq.report.values import Finding

#: The rules, those first whose findings explain others.
RULES: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    samples.findings_on_numbers,
    samples.findings_on_range,
    outputs.findings_on_constants,
    outputs.findings_on_noise,
    outputs.findings_on_parts,
    outputs.findings_on_columns,
    layers.findings_on_zeros,
    layers.findings_on_dead_layers,
    layers.findings_on_noise,
)
#: Kinds of findings.
KINDS = ("samples", "input-range", "constant-output", "noisy-output", "lost-column", "dead-layer", "noisy-layers")


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, in the order of the rules."""
    return tuple(finding for rule in RULES for finding in rule(evidence))
