"""Small rewrites of a flat graph, which leave one kernel and one bias in each layer and drop those without effect."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfptq.base.text import unique_name
from tfptq.graph.channel_affine import ChannelAffine, channel_affine
from tfptq.graph.flat_graph import Call, FlatGraph, Unit, Value
from tfptq.graph.fold_batch_norm import LINEAR_LAYERS, has_no_activation, output_channels
from tfptq.graph.rebuild import instantiate

# Augmentation layers differ between Keras versions, so they are looked up by name.
_AUGMENTATIONS = (
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomElasticTransform"),
    *("RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom"),
)
#: Layers that return their input when they do not train.
IDENTITIES = frozenset(
    {
        keras.layers.ActivityRegularization,
        keras.layers.AlphaDropout,
        keras.layers.Dropout,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.Identity,
        keras.layers.SpatialDropout1D,
        keras.layers.SpatialDropout2D,
        keras.layers.SpatialDropout3D,
        *(getattr(keras.layers, name) for name in _AUGMENTATIONS if hasattr(keras.layers, name)),
    }
)


def remove_identities(graph: FlatGraph) -> FlatGraph:
    """Drop the layers that return their input in inference, ``Activation("linear")`` among them."""
    sources: dict[Value, Value] = {}
    kept = []
    for call in graph.calls:
        if _is_identity(call):
            source = call.inputs[0]
            sources[call.output] = sources.get(source, source)
        else:
            kept.append(call)
    return graph.with_calls(kept).substitute(sources)


def _is_identity(call: Call) -> bool:
    kind, config = call.unit.kind, call.unit.config
    linear = kind is keras.layers.Activation and config["activation"] in (None, "linear")
    if not linear and kind not in IDENTITIES:
        return False
    # An image layer also casts its input; then it has an effect.
    return len(call.inputs) == len(call.outputs) == 1 and call.inputs[0].dtype == call.output.dtype


def remove_recurrent_dropout(graph: FlatGraph) -> FlatGraph:
    """Set the dropout rates in recurrent layers to 0.

    Those of LSTM and GRU count their random masks in a variable in inference too, and files have no variables.
    """
    units = {
        unit: replace(unit, config=_without_dropout(unit.config))
        for unit in graph.units
        if issubclass(unit.kind, (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed))
    }
    return graph.replace_units(units)


def forget_states(graph: FlatGraph) -> FlatGraph:
    """Let LSTM layers start each call from zeros; those of a file that shall not do so are made to at last.

    (``tfptq.float_file.lstm_operators.lasting_states``)
    """
    units = {
        unit: replace(unit, config={**unit.config, "stateful": False})
        for unit in graph.units
        if unit.kind is keras.layers.LSTM and unit.config["stateful"]
    }
    return graph.replace_units(units)


def _without_dropout(config: Any) -> Any:
    """A (nested) config with the rates of recurrent layers and cells at 0; only these have both of the keys."""
    if isinstance(config, Mapping):
        rates = {"dropout": 0.0, "recurrent_dropout": 0.0}
        found = {key: _without_dropout(item) for key, item in config.items()}
        return {**found, **rates} if set(rates) <= set(found) else found
    if isinstance(config, list):
        return [_without_dropout(item) for item in config]
    return config


def unwrap_time_distributed(graph: FlatGraph) -> FlatGraph:
    """Replace ``TimeDistributed(Dense)`` by the dense layer, which takes any number of leading axes itself."""
    wrapped = (unit for unit in graph.units if unit.kind is keras.layers.TimeDistributed)
    return _replace_units(graph, {unit: dense for unit in wrapped if (dense := _dense_inside(unit)) is not None})


def _replace_units(graph: FlatGraph, changed: Mapping[Unit, Unit]) -> FlatGraph:
    """Call other units on the first input of some, in all of their calls."""
    return graph.replace_calls(
        {
            call: [Call(changed[call.unit], (call.inputs[0],), {}, call.outputs)]
            for call in graph.calls
            if call.unit in changed
        }
    )


def _dense_inside(unit: Unit) -> Unit | None:
    """The dense layer in a wrapper, or in wrappers of a wrapper, under the wrapper's name; None for other layers."""
    inner = unit.config["layer"]
    while (inner["module"], inner["class_name"]) == ("keras.layers", "TimeDistributed"):
        inner = inner["config"]["layer"]
    if (inner["module"], inner["class_name"]) != ("keras.layers", "Dense"):
        return None
    config = {**inner["config"], "name": unit.name, "dtype": unit.config["dtype"]}
    return Unit(unit.name, keras.layers.Dense, config, unit.weights)


def repeat_pixels_by_resizing(graph: FlatGraph) -> FlatGraph:
    """Replace ``UpSampling2D`` that repeats pixels by ``Resizing``: one operator of the file in place of twelve."""
    calls = (call for call in graph.calls if call.unit.kind is keras.layers.UpSampling2D and graph.called_once(call))
    return graph.replace_units({call.unit: unit for call in calls if (unit := _resizing(call)) is not None})


def _resizing(call: Call) -> Unit | None:
    """The layer that resizes to the output of a call; None where that computes something else, or is not known."""
    unit, (_, height, width, _) = call.unit, call.output.shape
    if unit.config["interpolation"] != "nearest" or unit.config["data_format"] != "channels_last":
        return None
    if height is None or width is None:
        return None
    config = {"name": unit.name, "height": height, "width": width, "interpolation": "nearest"}
    config |= {key: unit.config[key] for key in ("dtype", "data_format")}
    return Unit(unit.name, keras.layers.Resizing, full_config(keras.layers.Resizing, config))


def batch_norm_as_depthwise(graph: FlatGraph) -> FlatGraph:
    """Replace BatchNormalization of feature maps by a depthwise convolution of one tap, which computes the same.

    As a product and a sum it would be two operators with a rounding between them; as a convolution it is one, with an
    int32 bias and a scale for each channel, that takes its activation function in and follows the scales of channels.
    Behind a linear layer without an activation function, whose result nothing else reads, it stays: the converter fuses
    it there, even where the layer is shared. One that is called elsewhere as well is replaced in all of its calls.
    """
    made: dict[Unit, Unit] = {}
    for call in graph.calls:
        affine = channel_affine(call) if call.unit.kind is keras.layers.BatchNormalization else None
        if affine is None or affine.axis != 3 or len(affine.source.shape) != 4:
            continue
        producer = graph.producers.get(affine.source)
        linear = producer is not None and producer.unit.kind in LINEAR_LAYERS and has_no_activation(producer.unit)
        if not linear or graph.only_user(affine.source) is None:
            made.setdefault(call.unit, _depthwise(call.unit, affine))
    return _replace_units(graph, made)


def _depthwise(unit: Unit, affine: ChannelAffine) -> Unit:
    kind, config = keras.layers.DepthwiseConv2D, {"name": unit.name, "dtype": unit.config["dtype"], "kernel_size": 1}
    scale, shift = (values.astype(np.float32) for values in (affine.scale, affine.shift))
    return Unit(unit.name, kind, full_config(kind, config), (("kernel", scale[None, None, :, None]), ("bias", shift)))


def add_missing_biases(graph: FlatGraph) -> FlatGraph:
    """Give convolutions and dense layers without a bias one of zeros, for the correction of the mean output."""
    bare = [unit for unit in graph.units if unit.kind in LINEAR_LAYERS and not unit.config["use_bias"]]
    return graph.replace_units({unit: _with_zero_bias(unit) for unit in bare})


def _with_zero_bias(unit: Unit) -> Unit:
    bias = np.zeros(output_channels(unit), np.float32)
    return replace(unit, config={**unit.config, "use_bias": True}, weights=(*unit.weights, ("bias", bias)))


def split_separable_convolutions(graph: FlatGraph) -> FlatGraph:
    """Replace a separable convolution by a depthwise one, and a pointwise (1x1) one with its bias and activation."""
    separable = [unit for unit in graph.units if unit.kind in _SEPARABLE]
    names = {unit.name for unit in graph.units} - {unit.name for unit in separable}
    halves: dict[Unit, tuple[Unit, Unit]] = {}
    for unit in separable:
        halves[unit] = _split_unit(unit, names)
        names.update(half.name for half in halves[unit])
    return graph.replace_calls(
        {call: _split_call(call, *halves[call.unit]) for call in graph.calls if call.unit in halves}
    )


_SEPARABLE = {
    keras.layers.SeparableConv1D: (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    keras.layers.SeparableConv2D: (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}


def _split_unit(unit: Unit, taken: set[str]) -> tuple[Unit, Unit]:
    """The depthwise and the pointwise half of a separable convolution, under names that are not taken."""
    config = unit.config
    depthwise_kind, pointwise_kind = _SEPARABLE[unit.kind]
    shared = {key: config[key] for key in ("trainable", "dtype", "data_format")}
    depthwise = {key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")}
    pointwise = {key: config[key] for key in ("filters", "use_bias", "activation")}
    first_name, second_name = (unique_name(f"{unit.name}_{half}", taken) for half in ("depthwise", "pointwise"))
    first = {**shared, **depthwise, "use_bias": False, "activation": "linear", "name": first_name}
    second = {**shared, **pointwise, "kernel_size": 1, "name": second_name}
    (_, depthwise_kernel), (_, pointwise_kernel), *bias = unit.weights
    return (
        Unit(first_name, depthwise_kind, full_config(depthwise_kind, first), (("kernel", depthwise_kernel),)),
        Unit(second_name, pointwise_kind, full_config(pointwise_kind, second), (("kernel", pointwise_kernel), *bias)),
    )


def full_config(kind: type[keras.Operation], config: dict) -> dict:
    """The config with all defaults filled in, as other passes expect to read it."""
    return kind.from_config(config).get_config()


def _split_call(call: Call, first: Unit, second: Unit) -> list[Call]:
    shape = instantiate(first).compute_output_shape(call.inputs[0].shape)
    between = Value(tuple(shape), call.output.dtype)
    return [
        replace(call, unit=first, outputs=(between,)),
        Call(second, (between,), {}, call.outputs),
    ]
