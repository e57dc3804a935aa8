"""Annotate layers and models, and turn annotations into wrappers. TFMOT's functions, on Keras 3.

Models are built Functional or Sequential models with a known graph. They are copied first, so that the user's model
never changes: results are flat float32 functional models, trainable, with weights of their own. A config is a
``QuantizationConfig``, the name of a preset, or None for the default preset.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfptq.config import QuantizationConfig, check_overrides, resolve_config
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model
from tfptq.layers.quantize_config import DefaultQuantizeConfig, QuantizeConfig
from tfptq.layers.quantizers import ActivationQuantizer, WeightQuantizer
from tfptq.layers.registry import is_weighted, looks_up, supports
from tfptq.layers.wrapper import QuantizeAnnotate, QuantizeWrapper

Scheme = QuantizationConfig | str | None
_CUSTOM_OBJECTS = (ActivationQuantizer, DefaultQuantizeConfig, QuantizeAnnotate, QuantizeWrapper, WeightQuantizer)


def quantize_scope(*args: Mapping[str, Any]) -> keras.saving.CustomObjectScope:
    """Scope in which Keras finds tfptq's classes, and those in ``args`` (class name -> class), to load a model."""
    objects = {kind.__name__: kind for kind in _CUSTOM_OBJECTS}
    for custom in args:
        objects.update(custom)
    return keras.saving.custom_object_scope(objects)


def quantize_annotate_layer(
    to_annotate: keras.Layer, quantize_config: QuantizeConfig | None = None
) -> QuantizeAnnotate:
    """Mark a layer, built or not, for ``quantize_apply``; the result computes the same and is used in its place.

    A layer without a default of its class needs a ``quantize_config``.
    """
    annotation = QuantizeAnnotate(to_annotate, quantize_config)
    if quantize_config is None and not supports(to_annotate):
        kind = type(to_annotate).__name__
        raise ValueError(
            f"layer {to_annotate.name!r} is a {kind}, which tfptq does not know how to quantize; pass a "
            f"quantize_config, or teach it with tfptq.layers.register({kind}, specs_function)"
        )
    return annotation


def quantize_annotate_model(to_annotate: keras.Model, config: Scheme = None) -> keras.Model:
    """Mark all layers of a model that tfptq can quantize and ``config`` does not skip, but for those that are marked.

    A config of None leaves the choice to ``quantize_apply``.

    Raises:
        ValueError: the model has no known graph, or an override matches no layer.
    """
    model = _copy(to_annotate)
    if config is not None:
        config = resolve_config(config)
        check_overrides(config, _quantizable_names(model))

    def annotate(layer):
        if not (isinstance(layer, keras.Layer) and supports(layer)):
            return layer
        if config is None:
            return QuantizeAnnotate(layer)
        layer_config = config.for_layer(layer.name)
        return layer if layer_config.keeps_weights else QuantizeAnnotate(layer, DefaultQuantizeConfig(layer_config))

    return _replace_layers(model, annotate)


def quantize_apply(model: keras.Model, scheme: Scheme = None) -> keras.Model:
    """Turn annotated layers into ``QuantizeWrapper``s; ``scheme`` is for those that were annotated without a config.

    Weight scales start at max-abs (with ``"shift"``, at the shifts that max-abs gives); inputs and outputs pass
    through until their grids are assigned. Layers that the scheme skips lose their annotation.

    Raises:
        ValueError: no layer is annotated, the model has no known graph, or an override matches no layer.
    """
    model, config = _copy(model), resolve_config(scheme)
    check_overrides(config, [annotation.layer.name for annotation in _annotations(model)])
    return _apply(model, config)


def _annotations(model: keras.Model) -> list[QuantizeAnnotate]:
    annotations = [layer for layer in model.layers if isinstance(layer, QuantizeAnnotate)]
    if not annotations:
        raise ValueError(
            f"no layer of {model.name!r} is annotated; use quantize_annotate_model or quantize_annotate_layer first, "
            "or quantize_model for both steps"
        )
    return annotations


def _apply(model: keras.Model, config: QuantizationConfig) -> keras.Model:
    """``quantize_apply`` on a flat copy, which is used up, and a config whose overrides were checked."""

    def wrap(layer):
        if not isinstance(layer, QuantizeAnnotate):
            return layer
        quantize_config = layer.quantize_config
        if quantize_config is None:
            layer_config = config.for_layer(layer.layer.name)
            if layer_config.keeps_weights:
                return layer.layer
            quantize_config = DefaultQuantizeConfig(layer_config)
        return QuantizeWrapper(layer.layer, quantize_config)

    applied = _replace_layers(model, wrap)
    for wrapper in wrappers(applied):
        _set_initial_scales(wrapper)
    return applied


def quantize_model(to_quantize: keras.Model, config: Scheme = None) -> keras.Model:
    """Annotate and apply in one step; layers that are annotated already keep the config of their annotation.

    Raises:
        ValueError: no layer can be quantized, the model has no known graph, or an override matches no layer.
    """
    config = resolve_config(config)
    model = quantize_annotate_model(to_quantize, config)  # which checks the overrides, those of skipped layers too
    _annotations(model)
    return _apply(model, config)


def wrappers(model: keras.Model) -> list[QuantizeWrapper]:
    """The wrappers of a model and of the models that are its layers, in graph order."""
    found = []
    for layer in model.layers:
        if isinstance(layer, QuantizeWrapper):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found.extend(wrappers(layer))
    return found


def strip(model: keras.Model) -> keras.Model:
    """Plain float copy of a model whose weights are the fake-quantized ones; activations are not quantized any more."""

    def unwrap(layer):
        if not isinstance(layer, QuantizeWrapper):
            return layer
        values = [
            keras.ops.convert_to_numpy(weight.fake_quantized(training=False)) for weight in layer.quantized_weights
        ]
        for weight, value in zip(layer.quantized_weights, values, strict=True):
            weight.variable.assign(value)
        return layer.layer

    return _replace_layers(_copy(model), unwrap)


def _copy(model: keras.Model) -> keras.Model:
    return build_model(read_graph(model))


def _replace_layers(model: keras.Model, function: Callable) -> keras.Model:
    """Rebuild a flat copy with ``function(layer)`` in the place of each layer; the copy is used up."""

    def replace(operation):
        # The operations move to the new model; calls in the old one would make layer.output ambiguous.
        operation._inbound_nodes.clear()
        operation._outbound_nodes.clear()
        return function(operation)

    return keras.models.clone_model(model, clone_function=replace)


def _quantizable_names(model: keras.Model) -> list[str]:
    layers = [layer.layer if isinstance(layer, QuantizeAnnotate) else layer for layer in model.layers]
    return [layer.name for layer in layers if looks_up(layer) or (supports(layer) and is_weighted(layer))]


def _set_initial_scales(wrapper: QuantizeWrapper) -> None:
    for weight in wrapper.quantized_weights:
        if weight.view is not None and isinstance(weight.quantizer, WeightQuantizer):
            kernel = keras.ops.convert_to_numpy(weight.variable)
            weight.assign_scales(weight.quantizer.config.scales_of(weight.view.to_view(kernel)))
