"""What is wrong with a result: rules that look at what calibration and the comparison with the float model saw."""

from collections.abc import Callable, Iterator

from tfptq.report import devices, layers, outputs, samples
from tfptq.report.outcome import Evidence
from tfptq.report.values import Finding

#: Rules whose findings may explain what the later ones find.
CAUSES: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    samples.findings_on_numbers,
    samples.findings_on_range,
    samples.findings_on_channels,
    outputs.findings_on_constants,
    layers.findings_on_zeros,
    layers.findings_on_dead_layers,
    outputs.findings_on_parts,
    outputs.findings_on_columns,
    devices.findings_on_float_operators,
)
#: Rules on what the file lost, whose advice would mislead where the samples are of a wrong range.
EFFECTS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    outputs.findings_on_lost_outputs,
    outputs.findings_on_noise,
    layers.findings_on_lost_layers,
    layers.findings_on_noise,
)
#: Kinds of findings.
KINDS = (
    "samples",
    samples.WRONG_RANGE,
    "constant-output",
    "noisy-output",
    "lost-column",
    "dead-layer",
    "noisy-layers",
    devices.FLOAT_OPERATORS,
)


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, in the order of the rules; no effects where the range of the samples is a cause."""
    causes = [finding for rule in CAUSES for finding in rule(evidence)]
    wrong_range = any(finding.kind == samples.WRONG_RANGE for finding in causes)
    effects = [] if wrong_range else [finding for rule in EFFECTS for finding in rule(evidence)]
    return (*causes, *effects)
