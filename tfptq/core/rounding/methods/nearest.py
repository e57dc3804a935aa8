"""Rounding to the nearest code. The data plays no part."""

import numpy as np

from tfptq.core.rounding.problem import RoundingProblem
from tfptq.core.rounding.registry import NoOptions, rounding_method


@rounding_method("nearest", learns=False)
def nearest_codes(problem: RoundingProblem, options: NoOptions) -> np.ndarray:
    """Codes ``[G, P, K]`` next to the float weights."""
    del options
    return problem.nearest()
