"""The weights of the layers of a canonical Keras model, as ``prepare.decisions`` wants them."""

import keras

from tfptq.graph import edge_layers
from tfptq.prepare.decisions import Weights, small_edges
from tfptq.prepare.storage import groups_of


def weights_of_layers(model: keras.Model) -> Weights:
    """The weights of all layers that tfptq knows.

    Depthwise convolutions of one tap have a weight for each channel: a BatchNormalization is made one.
    """
    groups = groups_of(model)  # in the order of computation
    sizes = {group.name: group.size for group in groups}
    scales = tuple(name for name in sizes if _scales_channels(model.get_layer(name)))
    edges = edge_layers(model, [name for name in sizes if name not in scales])
    return Weights(tuple(groups), small_edges(edges, sizes), scales)


def _scales_channels(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D) and set(layer.kernel_size) == {1}
