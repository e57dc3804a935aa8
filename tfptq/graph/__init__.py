"""The Keras graph before quantization: the canonical model, its channels, and the check of float equality."""

from tfptq.graph.canonicalise import canonicalise
from tfptq.graph.channel_steps import channel_groups
from tfptq.graph.edges import edge_layers
from tfptq.graph.float_equality import (
    FloatEqualityError,
    check_float_equal,
    few_samples,
    fresh_states,
    largest_difference,
    model_outputs,
)
from tfptq.graph.input_scaling import input_normalizations_to_keep
from tfptq.graph.input_statistics import InputStatistics, input_factors, input_statistics
from tfptq.graph.move_channels import move_channels
from tfptq.graph.read_graph import input_names

__all__ = [
    "FloatEqualityError",
    "InputStatistics",
    "canonicalise",
    "channel_groups",
    "check_float_equal",
    "edge_layers",
    "few_samples",
    "fresh_states",
    "input_factors",
    "input_names",
    "input_normalizations_to_keep",
    "input_statistics",
    "largest_difference",
    "model_outputs",
    "move_channels",
]
