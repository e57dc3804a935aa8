"""All cases of the survey by name."""

from benchmarks.survey.application_cases import application_cases
from benchmarks.survey.case import MakeCase
from benchmarks.survey.layer_cases import layer_cases
from benchmarks.survey.op_cases import op_cases
from benchmarks.survey.structure_cases import structure_cases


def all_cases() -> dict[str, MakeCase]:
    """Name -> case; what stands before the first point is the kind."""
    return structure_cases() | layer_cases() | op_cases() | application_cases()
