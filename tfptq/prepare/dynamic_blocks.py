"""Blocks that stock kernels take in dense layers with float activations; outside of their window they write zeros."""

import glob
from dataclasses import replace

import keras

from tfptq.config import Granularity, PerBlock, PerChannel, QuantizationConfig, override
from tfptq.layers import supports, weight_specs
from tfptq.prepare.storage import layer_requests
from tfptq.tflite.layouts import NATIVE, POLICIES

#: Widths of a block that are tried where that of the config does not divide the inputs of a layer.
WIDTHS = (128, 64, 32)


def with_blocks_of_target(config: QuantizationConfig, model: keras.Model) -> QuantizationConfig:
    """Give dense layers narrower blocks than the config says, or a scale per channel, where kernels need it.

    Layers whose layout the config names are left alone: the layout refuses what it cannot hold.

    Args:
        config: config with pinned edges.
        model: canonical Keras model.
    """
    found = []
    for layer in filter(supports, model.layers):
        own = config.for_layer(layer.name)
        free = own.layout in POLICIES and not own.keeps_weights
        if free and own.activations == "dynamic" and own.granularity.has_blocks:
            fitting = _fitting(layer, own)
            if fitting != own.granularity:
                found.append(override(glob.escape(layer.name), granularity=fitting, scaler="float"))
    return config.replace(overrides=(*config.overrides, *found)) if found else config


def _fitting(layer: keras.Layer, own: QuantizationConfig) -> Granularity:
    """The granularity of the config, else the widest blocks below it that the kernels take, else channels."""
    if NATIVE.name not in own.target.dynamic:
        return PerChannel()
    widest = min(own.granularity.block_shape(*spec.view.view_shape[:2])[1] for spec in weight_specs(layer))
    tried = (own.granularity, *(PerBlock(1, width) for width in WIDTHS if width < widest))
    return next((each for each in tried if _is_taken(layer, own, each)), PerChannel())


def _is_taken(layer: keras.Layer, own: QuantizationConfig, granularity: Granularity) -> bool:
    own = replace(own, granularity=granularity)
    requests = (each for spec in weight_specs(layer) for each in layer_requests(layer, spec, own, own.weight_bits))
    return all(NATIVE.obstacle(each) is None for each in requests)
