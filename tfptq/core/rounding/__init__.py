"""Choose the integer codes of a weight for given scales: ``round_weight``, and a file in ``methods`` for each way."""

from tfptq.core.rounding.methods import ROUNDING_METHODS
from tfptq.core.rounding.registry import NoOptions, RoundingMethod, rounding_method
from tfptq.core.rounding.weights import round_weight

__all__ = ["ROUNDING_METHODS", "NoOptions", "RoundingMethod", "round_weight", "rounding_method"]
