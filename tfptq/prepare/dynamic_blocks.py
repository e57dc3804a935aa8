"""Blocks that stock kernels take in dense layers with float activations; outside of their window they write zeros."""

from collections.abc import Iterable
from dataclasses import replace

from tfptq.config import Granularity, PerBlock, PerChannel, QuantizationConfig, exactly, override
from tfptq.prepare.storage import WeightGroup
from tfptq.tflite.layouts import NATIVE, POLICIES

#: Widths of a block that are tried where that of the config does not divide the inputs of a layer.
WIDTHS = (128, 64, 32)


def with_blocks_of_target(config: QuantizationConfig, groups: Iterable[WeightGroup]) -> QuantizationConfig:
    """Give dense layers narrower blocks than the config says, or a scale per channel, where kernels need it.

    Layers whose layout the config names are left alone: the layout refuses what it cannot hold.

    Args:
        config: config with pinned edges.
        groups: the weights of the network.
    """
    found = []
    for group in groups:
        own = config.for_layer(group.name)
        free = own.layout in POLICIES and not own.keeps_weights
        if free and own.activations == "dynamic" and own.granularity.has_blocks:
            fitting = _fitting(group, own)
            if fitting != own.granularity:
                found.append(override(exactly(group.name), granularity=fitting, scaler="float"))
    return config.replace(overrides=(*config.overrides, *found)) if found else config


def _fitting(group: WeightGroup, own: QuantizationConfig) -> Granularity:
    """The granularity of the config, else the widest blocks below it that the kernels take, else channels."""
    if NATIVE.name not in own.target.dynamic:
        return PerChannel()
    widest = min(own.granularity.block_shape(*view.shape[:2])[1] for view in group.views)
    tried = (own.granularity, *(PerBlock(1, width) for width in WIDTHS if width < widest))
    return next((each for each in tried if _is_taken(group, own, each)), PerChannel())


def _is_taken(group: WeightGroup, own: QuantizationConfig, granularity: Granularity) -> bool:
    requests = group.requests(replace(own, granularity=granularity), own.weight_bits)
    return all(NATIVE.obstacle(each) is None for uses in requests for each in uses)
