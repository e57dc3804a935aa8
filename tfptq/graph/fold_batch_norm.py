"""Fold constant affine maps of channels (BatchNormalization, Rescaling, ...) into their neighbours.

With ``z = W x + b`` and ``y = scale * z + shift`` (each output channel ``o``; ``x`` has input channels ``i``):

* *into the preceding layer*, when it is linear and nothing else reads ``z``:
  ``W'[o] = scale[o] W[o]``, ``b'[o] = scale[o] b[o] + shift[o]``;
* *into the following layer*, ``z = W (scale * x + shift) + b``, when nothing else reads the scaled ``x``:
  ``W'[o, i] = W[o, i] scale[i]``, ``b'[o] = b[o] + sum over i, taps of W[o, i] shift[i]``. Zero padding would pad
  after the shift, so this needs unpadded taps, or a shift of 0.

Both are exact up to float32 rounding. The TFLite converter fuses some of these maps itself; folding them all first
keeps the weights of the file equal to the weights of the Keras layers.

Layouts of kernels: convolution ``[*taps, I/groups, O]``, transposed ``[*taps, O, I]``, depthwise ``[*taps, I, M]``
(output channel ``i * M + m``), dense ``[I, O]``.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import keras
import numpy as np

from tfptq.graph.channel_affine import ChannelAffine, channel_affine
from tfptq.graph.flat_graph import Call, FlatGraph, Unit

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
#: Layers with one kernel and, if they have it, one bias.
LINEAR_LAYERS = (*CONVOLUTIONS, *TRANSPOSED, *DEPTHWISE, keras.layers.Dense)


def fold_batch_norm(graph: FlatGraph, kept: Collection[str] = ()) -> FlatGraph:
    """Fold every constant affine map that can be folded, but for units named in ``kept``.

    The graph has no identity layers in between.
    """
    before = None
    while before is not graph:
        before = graph
        for call in before.calls:
            if call not in graph.calls_of(call.unit):
                continue  # it was folded with an earlier call of its unit, or has another input now
            affine = None if call.unit.name in kept else channel_affine(call)
            if affine is not None:
                graph = _fold_call(graph, call, affine)
    return graph


def _fold_call(graph: FlatGraph, call: Call, affine: ChannelAffine) -> FlatGraph:
    """Fold a map into the layer before or behind it: into all calls of that layer, as in a tower for several inputs."""
    producer = graph.producers.get(affine.source)
    if producer is not None and _takes_output_affine(producer, affine):
        behind = {layer: graph.only_user(layer.output) for layer in graph.calls_of(producer.unit)}
        maps = _same_maps(behind, call, affine)
        if maps:
            unit = _scale_outputs(producer.unit, affine)
            # The folded layer yields the values that the affine map yielded.
            folded = {layer: [replace(layer, unit=unit, outputs=other.outputs)] for layer, other in maps.items()}
            return graph.replace_calls({**folded, **{other: [] for other in maps.values()}})
    consumer = graph.only_user(call.output)
    if consumer is not None and _takes_input_affine(consumer, affine):
        before = {layer: graph.producers.get(layer.inputs[0]) for layer in graph.calls_of(consumer.unit)}
        maps = _same_maps(before, call, affine)
        if maps and all(graph.only_user(other.output) is layer for layer, other in maps.items()):
            unit = _scale_inputs(consumer.unit, affine)
            folded = {layer: [replace(layer, unit=unit)] for layer in maps}
            graph = graph.replace_calls({**folded, **{other: [] for other in maps.values()}})
            return graph.substitute({other.output: other.inputs[0] for other in maps.values()})
    return graph


def _same_maps(neighbours: Mapping[Call, Call | None], call: Call, affine: ChannelAffine) -> dict[Call, Call]:
    """Call of a layer -> its neighbour, if all of these compute the map that ``call`` computes; else empty."""
    found = {layer: other for layer, other in neighbours.items() if other and _is_same_map(other, call, affine)}
    return found if len(found) == len(neighbours) else {}


def _is_same_map(other: Call, call: Call, affine: ChannelAffine) -> bool:
    found = channel_affine(other) if other.unit is call.unit else None
    return (
        found is not None
        and found.axis == affine.axis
        and np.array_equal(found.scale, affine.scale)
        and np.array_equal(found.shift, affine.shift)
    )


def _takes_output_affine(producer: Call, affine: ChannelAffine) -> bool:
    return (
        producer.unit.kind in LINEAR_LAYERS and has_no_activation(producer.unit) and _channels_agree(producer, affine)
    )


def _takes_input_affine(consumer: Call, affine: ChannelAffine) -> bool:
    return (
        consumer.unit.kind in LINEAR_LAYERS
        and _channels_agree(consumer, affine)
        and (not np.any(affine.shift) or _is_unpadded(consumer.unit))
    )


def _channels_agree(call: Call, affine: ChannelAffine) -> bool:
    if affine.axis is None:
        return True
    first = call.unit.config.get("data_format") == "channels_first"
    return affine.axis == (1 if first else len(affine.source.shape) - 1)


def _is_unpadded(unit: Unit) -> bool:
    """Whether every output sums over all taps of true input."""
    if unit.kind is keras.layers.Dense:
        return True
    if unit.kind in TRANSPOSED:
        return False
    return unit.config["padding"] == "valid" or set(unit.config["kernel_size"]) == {1}


def _scale_outputs(unit: Unit, affine: ChannelAffine) -> Unit:
    kernel = unit.kernel.astype(np.float64)
    scale = affine.scale
    if unit.kind in TRANSPOSED:
        scale = scale[..., None]  # [O, 1]
    elif unit.kind in DEPTHWISE and scale.ndim:
        scale = scale.reshape(kernel.shape[-2:])  # [I, M]
    bias = _bias(unit)
    return with_kernel_and_bias(unit, kernel * scale, bias * affine.scale + affine.shift)


def _scale_inputs(unit: Unit, affine: ChannelAffine) -> Unit:
    kernel = unit.kernel.astype(np.float64)
    scale, shift = (_along_inputs(unit, kernel, coefficient) for coefficient in (affine.scale, affine.shift))
    bias = _bias(unit)
    if np.any(shift):  # Only layers whose output channels are the last axis or axes get here.
        summed = (kernel * shift).reshape(-1, *kernel.shape[-2:])  # [taps, I, O]
        bias = bias + (summed.sum(0).reshape(-1) if unit.kind in DEPTHWISE else summed.sum((0, 1)))
    return with_kernel_and_bias(unit, kernel * scale, bias)


def _bias(unit: Unit) -> np.ndarray:
    bias = unit.weight("bias")
    return np.zeros(output_channels(unit)) if bias is None else bias.astype(np.float64)


def _along_inputs(unit: Unit, kernel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One number per input channel, in a shape that broadcasts against the last two axes of the kernel."""
    if values.ndim == 0:
        return values
    if unit.kind in TRANSPOSED:
        return values  # [O, I]
    inputs, outputs = kernel.shape[-2:]
    groups = unit.config.get("groups", 1) if unit.kind in CONVOLUTIONS else 1
    # Output channels of group g read the input channels of group g: [groups, I/groups] -> [I/groups, O].
    return np.repeat(values.reshape(groups, inputs).T, outputs // groups, axis=1)


def has_no_activation(unit: Unit) -> bool:
    """Whether a convolution or dense layer has no activation function inside."""
    return unit.config["activation"] in (None, "linear")


def output_channels(unit: Unit) -> int:
    """Number of output channels of a convolution or dense layer."""
    shape = unit.kernel.shape
    if unit.kind in DEPTHWISE:
        return shape[-2] * shape[-1]
    return shape[-2] if unit.kind in TRANSPOSED else shape[-1]


def with_kernel_and_bias(unit: Unit, kernel: np.ndarray, bias: np.ndarray) -> Unit:
    """The same layer with a kernel in its own layout and a bias ``[O]`` or ``[]``; one of zeros is not added."""
    weights = [("kernel", kernel.astype(np.float32))]
    use_bias = unit.config["use_bias"] or bool(np.any(bias))
    if use_bias:
        weights.append(("bias", np.broadcast_to(bias, output_channels(unit)).astype(np.float32)))
    return replace(unit, config={**unit.config, "use_bias": use_bias}, weights=tuple(weights))
