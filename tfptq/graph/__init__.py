"""The Keras graph before quantization: the canonical model, its channel groups, and the check of float equality."""

from tfptq.graph.canonicalise import canonicalise
from tfptq.graph.channel_groups import ChannelGroup, ChannelGroups, Side, channel_groups
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
from tfptq.graph.move_channels import apply_permutations, rotate_channels, scale_channels
from tfptq.graph.rebuild import input_names

__all__ = [
    "ChannelGroup",
    "ChannelGroups",
    "FloatEqualityError",
    "InputStatistics",
    "Side",
    "apply_permutations",
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
    "rotate_channels",
    "scale_channels",
]
