"""Quantizers: how one tensor is fake-quantized. The protocol is TFMOT's, on Keras 3.

A quantizer has no state of its own. ``build`` makes its variables on a layer and returns them in a dictionary, which
is handed back to every other method; so one quantizer may serve many tensors, and the variables are saved with the
layer. A quantizer whose variables were never assigned passes tensors through.
"""

import abc
import dataclasses
import json
from typing import Any

import keras
import numpy as np

from tfptq.config import Granularity, PerTensor, QuantizationConfig
from tfptq.core.affine import LARGEST_SHIFT, ActivationGrid, weight_code_range
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView, quantize_nearest
from tfptq.layers.fake_quantize import fake_quantize
from tfptq.layers.registry import kernel_view

ops = keras.ops

#: Variables of one quantized tensor, by name.
Variables = dict[str, keras.Variable]
#: ``2.0**shift`` for shift = -15..15. A table is exact where ``pow`` may not be.
POWERS_OF_TWO = np.ldexp(np.float32(1.0), np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1)).astype(np.float32)


class Quantizer(abc.ABC):
    """How a tensor is fake-quantized."""

    @abc.abstractmethod
    def build(self, tensor_shape: tuple[int | None, ...], name: str, layer: keras.Layer) -> Variables:
        """Make the variables of a tensor with ``layer.add_weight(..., trainable=False)``.

        ``tensor_shape`` has None for unknown sizes; ``name`` is a prefix for the names of the variables.
        """

    @abc.abstractmethod
    def __call__(self, inputs: Any, training: bool | None, weights: Variables, **kwargs) -> Any:
        """Fake-quantize a tensor; ``weights`` is what ``build`` returned, and the wrapper passes no ``kwargs``."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Arguments of ``__init__`` as plain values."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Quantizer":
        """Quantizer from what ``get_config`` returned."""
        return cls(**config)


def _add_state(layer: keras.Layer, name: str, shapes: dict[str, tuple[tuple[int, ...], str]]) -> Variables:
    """Variables of zeros, from {key: (shape, dtype)}."""
    return {
        key: layer.add_weight(
            name=f"{name}_{key}", shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )
        for key, (shape, dtype) in shapes.items()
    }


@keras.saving.register_keras_serializable(package="tfptq")
class WeightQuantizer(Quantizer):
    """Symmetric codes of a kernel with one scale for each block.

    Args:
        scaler: ``"float"``, ``"shift"`` or another kind of ``BlockScales``.
        view: from the kernel to ``[O, I, T]``; None for kernels laid out as in Dense and Conv2D, ``[taps..., I, O]``.
    """

    def __init__(
        self,
        bits: int = 8,
        granularity: Granularity | None = None,
        scaler: str = "float",
        view: WeightView | None = None,
    ):
        # The config checks the values, and knows how to write a granularity down.
        self.config = QuantizationConfig(granularity or PerTensor(), scaler, bits, weight_scale="max_abs")
        self.view = view

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.config.weight_bits

    def build(self, tensor_shape, name, layer) -> Variables:
        """Make ``base`` and ``factors``; 0 stands for no scales."""
        view = self.view_of(tensor_shape)
        base_shape, factors_shape, _ = self._storage(view)
        factors_dtype = "float32" if self.config.scaler == "float" else "int8"
        shapes = {"base": (base_shape, "float32"), "factors": (factors_shape, factors_dtype)}
        return _add_state(layer, name, shapes)

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantize a kernel."""
        scale = self._scale_tensor(tuple(inputs.shape), weights)
        return fake_quantize(inputs, scale, 0.0, *weight_code_range(self.bits))

    def assign(self, scales: BlockScales, weights: Variables, tensor_shape: tuple[int, ...]) -> None:
        """Store scales of the quantizer's kind and block shape; a base of one entry may stand for many equal ones."""
        base_shape, factors_shape, block = self._storage(self.view_of(tensor_shape))
        expected = (self.config.scaler, factors_shape, block)
        found = (scales.kind, scales.factors.shape, scales.block_shape)
        if expected != found or scales.base.shape not in ((1,), base_shape):
            raise ValueError(
                f"the quantizer stores scales of (kind, shape, block) {expected} on a base {base_shape} and was given "
                f"{found} on a base {scales.base.shape}; fit the scales with the layer's own config"
            )
        weights["base"].assign(np.broadcast_to(scales.base, base_shape).astype(np.float32))
        weights["factors"].assign(scales.factors)

    def scales(self, weights: Variables, tensor_shape: tuple[int, ...]) -> BlockScales | None:
        """The stored scales of a kernel, or None."""
        base, factors = (ops.convert_to_numpy(weights[key]) for key in ("base", "factors"))
        if not base.any():
            return None
        return BlockScales(self.config.scaler, base, factors, self._storage(self.view_of(tensor_shape))[2])

    def quantized_weight(self, kernel: np.ndarray, weights: Variables) -> QuantizedWeight:
        """Nearest codes of a kernel with its stored scales; a ValueError if there are none."""
        scales = self.scales(weights, kernel.shape)
        if scales is None:
            raise ValueError("the weight has no scales yet; assign a QuantizedWeight, or use quantize_apply")
        return quantize_nearest(self.view_of(kernel.shape).to_view(kernel), scales, self.bits)

    def get_config(self) -> dict[str, Any]:
        """Config and view, for JSON."""
        view = None if self.view is None else dataclasses.asdict(self.view)
        return {"weight_config": self.config.to_dict(), "view": view}

    @classmethod
    def from_config(cls, config) -> "WeightQuantizer":
        """Quantizer from config and view."""
        weight = QuantizationConfig.from_json(json.dumps(config["weight_config"]))
        view = config["view"]
        if view is not None:
            view = WeightView(**{key: tuple(axes) for key, axes in view.items()})
        return cls(weight.weight_bits, weight.granularity, weight.scaler, view)

    def view_of(self, tensor_shape: tuple[int, ...]) -> WeightView:
        """The view of a kernel of this shape; a ValueError if the quantizer's own has another."""
        shape = tuple(tensor_shape)
        if self.view is None:
            return kernel_view(shape, (-1,), (-2,))
        if self.view.shape != shape:
            raise ValueError(f"the weight has the shape {shape} and the quantizer a view of {self.view.shape}")
        return self.view

    def _storage(self, view: WeightView) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]:
        """Shape of base, shape of factors, block shape."""
        # granularity, scaler        base     factors                  block
        # PerTensor, float           [1]      float32 [1, 1]           (O, I)
        # PerChannel, float          [1]      float32 [O, 1]           (1, I)
        # PerTensor, shift (WES)     [1]      int8 [O, 1], -k          (1, I)
        # other, shift or integer    [V]      int8 [V, H]              (m, n)
        outputs, inputs, _ = view.view_shape
        granularity, scaler = self.config.granularity, self.config.scaler
        if scaler == "shift" and isinstance(granularity, PerTensor):
            return (1,), (outputs, 1), (1, inputs)
        m, n = granularity.block_shape(outputs, inputs)
        factors = (-(-outputs // m), -(-inputs // n))
        return (1,) if scaler == "float" else factors[:1], factors, (m, n)

    def _scale_tensor(self, tensor_shape: tuple[int, ...], weights: Variables) -> Any:
        """float32 scale of every weight, broadcastable to the kernel."""
        view = self.view_of(tensor_shape)
        outputs, inputs, taps = view.view_shape
        _, _, (m, n) = self._storage(view)
        base, factors = (ops.convert_to_tensor(weights[key]) for key in ("base", "factors"))
        if self.config.scaler == "shift":
            multipliers = ops.take(POWERS_OF_TWO, ops.cast(factors, "int32") + LARGEST_SHIFT)
        else:
            multipliers = ops.cast(factors, "float32")
        blocks = ops.expand_dims(base, 1) * multipliers  # [V, H]
        if blocks.shape == (1, 1):
            return ops.reshape(blocks, ())
        scales = ops.repeat(ops.repeat(blocks, m, axis=0)[:outputs], n, axis=1)[:, :inputs, None]  # [O, I, 1]
        order = view.output_axes + view.input_axes + view.tap_axes
        split = ops.reshape(ops.broadcast_to(scales, (outputs, inputs, taps)), [view.shape[axis] for axis in order])
        return ops.transpose(split, np.argsort(order).tolist())


@keras.saving.register_keras_serializable(package="tfptq")
class ActivationQuantizer(Quantizer):
    """One affine grid for a whole activation tensor: 4 to 8 bits asymmetric, 16 bits symmetric."""

    def __init__(self, bits: int = 8):
        self.bits = QuantizationConfig(activation_bits=bits).activation_bits

    def build(self, tensor_shape, name, layer) -> Variables:
        """Make ``scale`` and ``zero_point``; a scale of 0 stands for no grid."""
        return _add_state(layer, name, {"scale": ((), "float32"), "zero_point": ((), "int32")})

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantize an activation."""
        scale = ops.convert_to_tensor(weights["scale"])
        zero_point = ops.cast(weights["zero_point"], "float32")
        return fake_quantize(inputs, scale, zero_point, *ActivationGrid(1.0, 0, self.bits).code_range)

    def assign(self, grid: ActivationGrid, weights: Variables) -> None:
        """Store a grid of the quantizer's bits, with a positive scale.

        Of 8 and 16 bits it takes either: a layer may read what one of another width writes.
        """
        if {grid.bits, self.bits} == {8, 16}:
            self.bits = grid.bits
        if grid.bits != self.bits or not grid.scale > 0.0:
            raise ValueError(f"{grid} does not fit an activation of {self.bits} bits with a positive scale")
        weights["scale"].assign(grid.scale)
        weights["zero_point"].assign(grid.zero_point)

    def grid(self, weights: Variables) -> ActivationGrid | None:
        """The stored grid, or None."""
        scale = float(ops.convert_to_numpy(weights["scale"]))
        if scale == 0.0:
            return None
        return ActivationGrid(scale, int(ops.convert_to_numpy(weights["zero_point"])), self.bits)

    def get_config(self) -> dict[str, Any]:
        """The bits."""
        return {"bits": self.bits}
