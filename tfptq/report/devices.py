"""Findings about what a file asks of its target that the target does not do."""

from collections.abc import Iterator

from tfptq.base.text import counted
from tfptq.report.outcome import Evidence
from tfptq.report.values import Finding

#: Kind of the findings about operators that an integer device leaves to another processor.
FLOAT_OPERATORS = "float-operators"


def findings_on_float_operators(evidence: Evidence) -> Iterator[Finding]:
    """Operators in float in a file for a device without float arithmetic, which cut the network into parts."""
    outcome = evidence.outcome
    found = outcome.plan.float_operators
    if not found or not outcome.config.target.integers_only:
        return
    kinds = ", ".join(dict.fromkeys(kind for kind, _, _ in found))
    # The first in a chain has a reason of its own.
    reasons = "; ".join(dict.fromkeys(reason for _, _, reason in found if "continues" not in reason))
    lacking_16 = outcome.config.activation_bits == 16 and "16-bit" in reasons
    advice = "Replace the layers that they are made of, or leave them out of the part for the device"
    if lacking_16:
        advice = "activation_bits=8 has integer kernels for more of them; else replace the layers that they are made of"
    yield Finding(
        FLOAT_OPERATORS,
        f"{counted(len(found), 'operator')} in float ({kinds}): target {outcome.config.target.name!r} leaves them to a "
        f"CPU, or refuses the file{': ' if reasons else ''}{reasons}",
        advice,
    )
