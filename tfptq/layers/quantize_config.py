"""QuantizeConfig: what of a layer is quantized, and with which quantizers. TFMOT's seven methods, on Keras 3.

Two things differ from TFMOT. ``layer.kernel = tensor`` raises in Keras 3, so ``set_quantize_weights`` assigns to the
variables; the wrapper calls it inside a ``keras.StatelessScope``, where an assigned tensor stands for the variable
until the scope ends, and gradients flow through it. And ``get_input_quantizers`` is new: ranges of deployed graphs
belong to tensors, so a wrapper can quantize what its layer reads.
"""

import abc
import json
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfptq.config import QuantizationConfig
from tfptq.layers.quantizers import ActivationQuantizer, Quantizer, WeightQuantizer
from tfptq.layers.registry import weight_specs

WeightsAndQuantizers = list[tuple[keras.Variable, Quantizer]]
ActivationsAndQuantizers = list[tuple[Callable, Quantizer]]


class QuantizeConfig(abc.ABC):
    """What of a layer is quantized, and how; subclass it for a layer class of your own.

    A Dense layer with a 4-bit kernel and nothing else gives ``[(layer.kernel, WeightQuantizer(bits=4))]``, assigns the
    tensor that it is handed back to ``layer.kernel``, and has empty lists and an empty config otherwise.
    """

    @abc.abstractmethod
    def get_weights_and_quantizers(self, layer: keras.Layer) -> WeightsAndQuantizers:
        """Pairs of a variable of the built ``layer`` and its quantizer."""

    @abc.abstractmethod
    def get_activations_and_quantizers(self, layer: keras.Layer) -> ActivationsAndQuantizers:
        """Pairs of an activation function of ``layer`` and the quantizer of what it returns."""

    @abc.abstractmethod
    def set_quantize_weights(self, layer: keras.Layer, quantize_weights: Sequence[Any]) -> None:
        """Assign fake-quantized tensors to the variables, in the order of ``get_weights_and_quantizers``.

        Called in a ``keras.StatelessScope``: the variables themselves do not change.
        """

    @abc.abstractmethod
    def set_quantize_activations(self, layer: keras.Layer, quantize_activations: Sequence[Callable]) -> None:
        """Replace the activation functions, in the order of ``get_activations_and_quantizers``.

        Called before a call of the layer with functions that quantize, and after it with the original ones.
        """

    @abc.abstractmethod
    def get_output_quantizers(self, layer: keras.Layer) -> list[Quantizer]:
        """Quantizers of the first outputs of ``layer``, in order; outputs beyond the list stay as they are."""

    def get_input_quantizers(self, layer: keras.Layer, count: int) -> list[Quantizer]:
        """Quantizers of the first of the ``count`` tensors that ``layer`` reads; none unless overridden."""
        del layer, count
        return []

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Arguments of ``__init__`` as plain values."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "QuantizeConfig":
        """Object from what ``get_config`` returned."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfptq")
class DefaultQuantizeConfig(QuantizeConfig):
    """The registered weights of a layer, its inputs and its first output, as ``config.for_layer(name)`` says.

    Its granularity, scaler, weight_bits and activation_bits count.
    """

    def __init__(self, layer_config: QuantizationConfig):
        self.layer_config = layer_config

    def get_weights_and_quantizers(self, layer):
        """The registered weights; a ValueError if the class of the layer is not registered."""
        config = self.layer_config
        return [
            (spec.variable, WeightQuantizer(config.weight_bits, config.granularity, config.scaler, spec.view))
            for spec in weight_specs(layer)
        ]

    def get_activations_and_quantizers(self, layer):
        """None: the output quantizer sees what the activation function returns."""
        del layer
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Assign to the kernels."""
        for spec, tensor in zip(weight_specs(layer), quantize_weights, strict=True):
            spec.variable.assign(tensor)

    def set_quantize_activations(self, layer, quantize_activations):
        """Nothing to replace."""
        pass

    def get_output_quantizers(self, layer):
        """One, for the first output."""
        del layer
        return [ActivationQuantizer(self.layer_config.activation_bits)]

    def get_input_quantizers(self, layer, count):
        """One for each tensor that the layer reads."""
        del layer
        return [ActivationQuantizer(self.layer_config.activation_bits) for _ in range(count)]

    def get_config(self):
        """The config as plain values."""
        return {"layer_config": self.layer_config.to_dict()}

    @classmethod
    def from_config(cls, config):
        """Object from plain values."""
        return cls(QuantizationConfig.from_json(json.dumps(config["layer_config"])))
