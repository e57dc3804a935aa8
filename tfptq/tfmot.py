"""tfptq's weight quantization inside TFMOT: for tf_keras (Keras 2) models and ``tfmot.quantization.keras``.

It needs the extra ``tfptq[tfmot]``. Importing this module imports TensorFlow Model Optimization, which turns
``tf.keras`` into Keras 2 (tf_keras) for the whole process. Nothing else in tfptq imports it.

Kernels get the layer-wise, channel-wise or shift (WES) scales of ``tfptq.core``; activations keep TFMOT's
moving-average ranges. Scales are fitted by ``fit_weight_scales(model)``, and again in every training step, as with
TFMOT's ``LastValueQuantizer``; before that, kernels pass through.

>>> quantization = tensorflow_model_optimization.quantization.keras
>>> config = DefaultQuantizeConfig(QuantizationConfig.from_preset("w8a8_shift"))
>>> annotated = tf_keras.models.clone_model(
...     model, clone_function=lambda layer: quantization.quantize_annotate_layer(layer, config))
>>> with quantization.quantize_scope(CUSTOM_OBJECTS):
...     simulation = quantization.quantize_apply(annotated)
>>> fit_weight_scales(simulation)
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

try:
    import tensorflow_model_optimization as tfmot
    import tf_keras
except ModuleNotFoundError as error:
    raise ImportError(
        'tfptq.tfmot needs TensorFlow Model Optimization; install it with: pip install "tfptq[tfmot]"'
    ) from error

from tfptq import layers as keras3
from tfptq.config import Granularity, QuantizationConfig
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.layers.registry import kernel_view

#: Class -> (attribute of the kernel, output axes, input axes); axes count from the end.
_KERNELS = {
    tf_keras.layers.DepthwiseConv2D: ("depthwise_kernel", (-2, -1), ()),
    tf_keras.layers.Conv2DTranspose: ("kernel", (-2,), (-1,)),
    tf_keras.layers.Conv2D: ("kernel", (-1,), (-2,)),
    tf_keras.layers.Conv1D: ("kernel", (-1,), (-2,)),
    tf_keras.layers.Dense: ("kernel", (-1,), (-2,)),
}


class _VariableOwner:
    """Gives a tf_keras layer the ``add_weight`` of Keras 3."""

    def __init__(self, layer: tf_keras.layers.Layer):
        self._layer = layer

    def add_weight(self, autocast: bool, **kwargs) -> tf.Variable:
        return self._layer.add_weight(experimental_autocast=autocast, **kwargs)


class WeightQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """``tfptq.layers.WeightQuantizer`` for TFMOT; scales are found by ``weight_scale``, ``"max_abs"`` or ``"mse"``."""

    def __init__(
        self,
        bits: int = 8,
        granularity: Granularity | None = None,
        scaler: str = "float",
        weight_scale: str = "max_abs",
        view: WeightView | None = None,
    ):
        self._quantizer = keras3.WeightQuantizer(bits, granularity, scaler, view)
        self._config = self._quantizer.config.replace(weight_scale=weight_scale)

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        """Make the variables ``base`` and ``factors``."""
        return self._quantizer.build(tuple(tensor_shape), name, _VariableOwner(layer))

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantize a kernel; when training, with scales that are fitted to it first."""
        if training:
            weights = self._refitted(inputs, weights)
        return self._quantizer(inputs, training, weights)

    def _refitted(self, kernel: tf.Tensor, weights: dict[str, Any]) -> dict[str, Any]:
        def fit(values):
            scales = self.fit_scales(values)
            return np.broadcast_to(scales.base, weights["base"].shape).astype(np.float32), scales.factors

        kinds = [weights["base"].dtype, weights["factors"].dtype]
        fitted = tf.numpy_function(fit, [tf.stop_gradient(kernel)], kinds, stateful=False)
        return {
            key: weights[key].assign(tf.ensure_shape(value, weights[key].shape))
            for key, value in zip(("base", "factors"), fitted, strict=True)
        }

    def fit_scales(self, kernel: np.ndarray) -> BlockScales:
        """Scales that fit a kernel in its own layout."""
        return self._config.scales_of(self._quantizer.view_of(kernel.shape).to_view(kernel))

    def fit(self, kernel: tf.Variable, weights: dict[str, Any]) -> None:
        """Fit the scales of a kernel and store them."""
        self._quantizer.assign(self.fit_scales(kernel.numpy()), weights, tuple(kernel.shape))

    def quantized_weight(self, kernel: tf.Variable, weights: dict[str, Any]) -> QuantizedWeight:
        """Codes and scales of a kernel; a ValueError if the scales are not fitted yet."""
        return self._quantizer.quantized_weight(kernel.numpy(), weights)

    def get_config(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self._quantizer.get_config(), "weight_scale": self._config.weight_scale}

    @classmethod
    def from_config(cls, config) -> "WeightQuantizer":
        """Quantizer from plain values."""
        inner = keras3.WeightQuantizer.from_config(config)
        weight = inner.config
        return cls(weight.weight_bits, weight.granularity, weight.scaler, config["weight_scale"], inner.view)


class DefaultQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """Kernel by tfptq, activation function by TFMOT, as ``config.for_layer(name)`` says.

    For Dense, Conv1D, Conv2D, DepthwiseConv2D and Conv2DTranspose, with activations of up to 8 bits.
    """

    def __init__(self, layer_config: QuantizationConfig):
        if layer_config.activation_bits > 8:
            raise ValueError(f"activation_bits is {layer_config.activation_bits}; TFMOT simulates 8 bits at most")
        self.layer_config = layer_config

    def get_weights_and_quantizers(self, layer):
        """The kernel."""
        attribute, outputs, inputs = _kernel_of(layer)
        kernel, config = getattr(layer, attribute), self.layer_config
        view = kernel_view(tuple(kernel.shape), outputs, inputs)
        return [
            (kernel, WeightQuantizer(config.weight_bits, config.granularity, config.scaler, config.weight_scale, view))
        ]

    def get_activations_and_quantizers(self, layer):
        """The activation function."""
        return [(layer.activation, self._activation_quantizer())]

    def set_quantize_weights(self, layer, quantize_weights):
        """Replace the kernel."""
        setattr(layer, _kernel_of(layer)[0], quantize_weights[0])

    def set_quantize_activations(self, layer, quantize_activations):
        """Replace the activation function."""
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        """None: the output is what the activation function returns."""
        del layer
        return []

    def _activation_quantizer(self):
        return tfmot.quantization.keras.quantizers.MovingAverageQuantizer(
            num_bits=self.layer_config.activation_bits, per_axis=False, symmetric=False, narrow_range=False
        )

    def get_config(self):
        """Plain values for JSON."""
        return {"layer_config": self.layer_config.to_dict()}

    @classmethod
    def from_config(cls, config):
        """Object from what ``get_config`` returned."""
        return cls(QuantizationConfig.from_json(json.dumps(config["layer_config"])))


#: For ``tfmot.quantization.keras.quantize_scope``.
CUSTOM_OBJECTS = {kind.__name__: kind for kind in (DefaultQuantizeConfig, WeightQuantizer)}


def fit_weight_scales(model: tf_keras.Model) -> None:
    """Fit the scales of all kernels that have a ``WeightQuantizer`` to their present values."""
    for _, kernel, quantizer, variables in _quantized_kernels(model):
        quantizer.fit(kernel, variables)


def quantized_weights(model: tf_keras.Model) -> dict[str, QuantizedWeight]:
    """Codes and scales of all kernels that have a ``WeightQuantizer``, by the name of the layer."""
    return {
        name: quantizer.quantized_weight(kernel, variables)
        for name, kernel, quantizer, variables in _quantized_kernels(model)
    }


def _quantized_kernels(model: tf_keras.Model) -> Iterator[tuple[str, tf.Variable, WeightQuantizer, dict[str, Any]]]:
    """(name of the layer, kernel, quantizer, variables of the quantizer)."""
    for layer in model.layers:
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapper):
            for kernel, quantizer, variables in layer._weight_vars:
                if isinstance(quantizer, WeightQuantizer):
                    yield layer.layer.name, kernel, quantizer, variables


def _kernel_of(layer: tf_keras.layers.Layer) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    for base in type(layer).__mro__:
        if base in _KERNELS:
            return _KERNELS[base]
    kind = type(layer).__name__
    raise ValueError(
        f"layer {layer.name!r} is a {kind}; DefaultQuantizeConfig takes "
        f"{', '.join(known.__name__ for known in _KERNELS)}; annotate it with a QuantizeConfig of your own"
    )
