"""The Keras graph before quantization: the canonical model, and the check that it computes the same."""

from tfptq.graph.canonicalise import canonicalise
from tfptq.graph.float_equality import FloatEqualityError, check_float_equal, largest_difference

__all__ = ["FloatEqualityError", "canonicalise", "check_float_equal", "largest_difference"]
