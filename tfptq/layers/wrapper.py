"""Layer wrappers: ``QuantizeAnnotate`` marks a layer, ``QuantizeWrapper`` simulates its quantization.

A call of a ``QuantizeWrapper`` fake-quantizes the tensors that the layer reads, its weights and its first outputs.
Each of them passes through until its scale or grid is assigned. The kernels stay ordinary, trainable variables; inside
a ``keras.StatelessScope`` the fake-quantized tensors take their place, so that gradients reach them.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from tfptq.layers.quantize_config import QuantizeConfig
from tfptq.layers.quantized_tensors import QuantizedActivation, QuantizedVariable
from tfptq.layers.quantizers import Quantizer
from tfptq.layers.registry import supports, weight_specs

#: Begins the name of a wrapper, before the name of its layer.
NAME_PREFIX = "quant_"


def input_names(layer: keras.Layer) -> tuple[str, ...]:
    """Names of the call arguments that are activations: those whose shapes ``layer.build`` takes.

    ``("query", "value", "key")`` for MultiHeadAttention; the first argument where ``build`` takes one shape only.
    """
    shapes = [name for name in inspect.signature(layer.build).parameters if name.endswith("_shape")]
    if len(shapes) > 1:
        return tuple(name.removesuffix("_shape") for name in shapes)
    return (next(iter(inspect.signature(layer.call).parameters)),)


def _build_shapes(layer: keras.Layer) -> dict[str, Any]:
    """Shapes that a layer was built with, by the name of the call argument."""
    config = layer.get_build_config()
    if "shapes_dict" in config:
        return {name.removesuffix("_shape"): shape for name, shape in config["shapes_dict"].items()}
    return {input_names(layer)[0]: config["input_shape"]}


def _output_shapes(layer: keras.Layer) -> list[tuple[int | None, ...]]:
    tensors = keras.tree.map_shape_structure(keras.KerasTensor, _build_shapes(layer))
    return [tuple(tensor.shape) for tensor in keras.tree.flatten(layer.compute_output_spec(**tensors))]


class _LayerWrapper(keras.layers.Wrapper):
    """A wrapper that is called with the arguments of its layer, whatever they are."""

    def __init__(self, layer: keras.Layer, quantize_config: QuantizeConfig | None, **kwargs):
        kind = type(self).__name__
        if not isinstance(layer, keras.Layer) or isinstance(layer, keras.Model | _LayerWrapper):
            raise ValueError(f"{kind} wraps one Keras 3 layer, not {layer!r}; for models use quantize_annotate_model")
        if not isinstance(quantize_config, QuantizeConfig | None):
            raise TypeError(f"quantize_config of layer {layer.name!r} is {quantize_config!r}; pass a QuantizeConfig")
        kwargs.setdefault("name", NAME_PREFIX + layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.quantize_config = quantize_config
        self.supports_masking = layer.supports_masking
        # Keras sorts tensors, masks and options by the signature of call(); *args and **kwargs would hide them.
        self._call_signature = inspect.signature(layer.call)

    def __call__(self, *args, **kwargs):
        """Build the wrapped layer with the shapes of all its inputs, then call."""
        if not self.layer.built:
            arguments = self._call_signature.bind_partial(*args, **kwargs).arguments
            given = [name for name in input_names(self.layer) if arguments.get(name) is not None]
            shapes = {
                f"{name}_shape": keras.tree.map_structure(lambda x: tuple(x.shape), arguments[name]) for name in given
            }
            if len(shapes) == 1:
                self.layer.build(*shapes.values())
            else:
                self.layer.build(**shapes)
        return super().__call__(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        """What the layer says: quantization changes no shape, and tracing it for every layer is slow."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        """The mask that the layer computes."""
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self):
        """Layer and quantize_config, serialized."""
        config = keras.saving.serialize_keras_object(self.quantize_config)
        return {**super().get_config(), "quantize_config": config}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Wrapper from what ``get_config`` returned."""
        config = dict(config)
        for key in ("layer", "quantize_config"):
            config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfptq")
class QuantizeAnnotate(_LayerWrapper):
    """Marks a layer for ``quantize_apply``, and computes what the layer computes.

    A ``quantize_config`` of None stands for the default of the scheme that ``quantize_apply`` is given.
    """

    def __init__(self, layer: keras.Layer, quantize_config: QuantizeConfig | None = None, **kwargs):
        super().__init__(layer, quantize_config, **kwargs)

    def call(self, *args, **kwargs):
        """Call the layer."""
        return self.layer(*args, **kwargs)


@keras.saving.register_keras_serializable(package="tfptq")
class QuantizeWrapper(_LayerWrapper):
    """Simulates the quantization of a layer, whose variables stay its own.

    A layer that is called several times has one wrapper, with one set of grids for all calls. The attributes
    ``quantized_*`` are filled once it is built: weights, inputs in the order of ``input_names(layer)``, outputs, and
    results of activation functions inside of the layer.
    """

    quantize_config: QuantizeConfig

    def __init__(self, layer: keras.Layer, quantize_config: QuantizeConfig, **kwargs):
        if quantize_config is None:
            raise TypeError(f"layer {layer.name!r} needs a quantize_config, such as DefaultQuantizeConfig(config)")
        super().__init__(layer, quantize_config, **kwargs)
        self.quantized_weights: tuple[QuantizedVariable, ...] = ()
        self.quantized_inputs: tuple[QuantizedActivation, ...] = ()
        self.quantized_outputs: tuple[QuantizedActivation, ...] = ()
        self.quantized_activations: tuple[QuantizedActivation, ...] = ()
        self._functions: tuple[Callable, ...] = ()

    def build(self, input_shape=None):
        """Make the variables of all quantizers, in a fixed order, which saved files depend on."""
        super().build(input_shape)
        layer, config = self.layer, self.quantize_config
        self.quantized_weights = self._build_weights()
        shapes = _build_shapes(layer)
        names = input_names(layer)
        self.quantized_inputs = tuple(
            self._build_activation(name, shapes.get(name), quantizer)
            for name, quantizer in zip(names, config.get_input_quantizers(layer, len(names)), strict=False)
        )
        quantizers = config.get_output_quantizers(layer)
        self.quantized_outputs = tuple(
            self._build_activation(f"output_{at}", shape, quantizer)
            for at, (quantizer, shape) in enumerate(zip(quantizers, _output_shapes(layer), strict=False))
        )
        activations = config.get_activations_and_quantizers(layer)
        self._functions = tuple(function for function, _ in activations)
        self.quantized_activations = tuple(
            self._build_activation(f"activation_{at}", None, quantizer) for at, (_, quantizer) in enumerate(activations)
        )

    def _build_weights(self) -> tuple[QuantizedVariable, ...]:
        specs = {id(spec.variable): spec for spec in weight_specs(self.layer)} if supports(self.layer) else {}
        weights = []
        for variable, quantizer in self.quantize_config.get_weights_and_quantizers(self.layer):
            spec = specs.get(id(variable))
            name, bias, view = (spec.name, spec.bias, spec.view) if spec else (variable.name, None, None)
            variables = quantizer.build(tuple(variable.shape), name.replace("/", "_"), self)
            weights.append(QuantizedVariable(name, variable, bias, view, quantizer, variables))
        return tuple(weights)

    def _build_activation(self, name: str, shape, quantizer: Quantizer) -> QuantizedActivation:
        return QuantizedActivation(name, quantizer, quantizer.build(shape, name, self))

    def call(self, *args, training=None, **kwargs):
        """Call the layer with fake-quantized inputs, weights, activations and outputs."""
        if "training" in self._call_signature.parameters:
            kwargs["training"] = training
        arguments, kwargs = self._quantized_arguments(args, kwargs, training)
        weights = [weight.fake_quantized(training) for weight in self.quantized_weights]
        with keras.StatelessScope(collect_losses=True) as scope:
            self.quantize_config.set_quantize_weights(self.layer, weights)
            outputs = self._call_layer(arguments, kwargs, training)
        self._keep_updates(scope)
        tensors = keras.tree.flatten(outputs)
        for at, output in enumerate(self.quantized_outputs):
            tensors[at] = output.fake_quantized(tensors[at], training)
        return keras.tree.pack_sequence_as(outputs, tensors)

    def _quantized_arguments(self, args: tuple, kwargs: dict, training) -> tuple[list, dict]:
        inputs = {item.name: item for item in self.quantized_inputs}

        def quantized(name, value):
            known = name in inputs and keras.ops.is_tensor(value)
            return inputs[name].fake_quantized(value, training) if known else value

        names = list(self._call_signature.parameters)[: len(args)]
        quantized_args = [quantized(name, value) for name, value in zip(names, args, strict=False)]
        return [*quantized_args, *args[len(names) :]], {name: quantized(name, value) for name, value in kwargs.items()}

    def _call_layer(self, args: list, kwargs: dict, training) -> Any:
        """Call the layer with activation functions that quantize what they return."""

        def quantizing(function: Callable, activation: QuantizedActivation) -> Callable:
            return lambda *inputs: activation.fake_quantized(function(*inputs), training)

        config, functions = self.quantize_config, self._functions
        config.set_quantize_activations(self.layer, list(map(quantizing, functions, self.quantized_activations)))
        try:
            return self.layer(*args, **kwargs)
        finally:
            config.set_quantize_activations(self.layer, list(functions))

    def _keep_updates(self, scope: keras.StatelessScope) -> None:
        """Apply what the layer itself changed in the scope: states of random generators, losses."""
        replaced = {id(weight.variable) for weight in self.quantized_weights}
        for variable in self.layer.variables:
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in replaced:
                variable.assign(value)
        for loss in scope.losses:
            self.add_loss(loss)
