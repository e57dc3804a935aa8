"""Quantizers: how one tensor is fake-quantized. The protocol is TFMOT's, on Keras 3.

A quantizer has no state of its own. ``build`` makes its variables on a layer and returns them in a dictionary, which
is handed back to every other method; so one quantizer may serve many tensors, and the variables are saved with the
layer. A quantizer whose variables were never assigned passes tensors through.

``WeightQuantizer`` stores ``BlockScales`` of one kind and shape, set by granularity and scaler:

========================  =======  =======================  ====================
granularity, scaler       base     factors                  block
========================  =======  =======================  ====================
PerTensor, float          [1]      float32 [1, 1]           (O, I)
PerChannel, float         [1]      float32 [O, 1]           (1, I)
PerTensor, shift (WES)    [1]      int8 [O, 1], ``-k``      (1, I)
other, shift or integer   [V]      int8 [V, H]              (m, n)
========================  =======  =======================  ====================
"""

import abc
import dataclasses
import json
from typing import Any

import keras
import numpy as np

from tfptq.config import Granularity, PerTensor, QuantizationConfig
from tfptq.core.affine import LARGEST_SHIFT, ActivationGrid, weight_code_range
from tfptq.core.blocks import (
    BlockScales,
    QuantizedWeight,
    WeightView,
    quantize_nearest,
)
from tfptq.layers.fake_quantize import fake_quantize

ops = keras.ops

#: Variables of one quantized tensor, by name.
Variables = dict[str, keras.Variable]
#: ``2.0**shift`` for shift = -15..15. A table is exact where ``pow`` may not be.
POWERS_OF_TWO = np.ldexp(np.float32(1.0), np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1)).astype(np.float32)


class Quantizer(abc.ABC):
    """How a tensor is fake-quantized."""

    @abc.abstractmethod
    def build(self, tensor_shape: tuple[int | None, ...], name: str, layer: keras.Layer) -> Variables:
        """Make the variables of one tensor.

        Args:
            tensor_shape: shape of the tensor, None for unknown sizes.
            name: name of the tensor, a prefix for the names of the variables.
            layer: layer that owns the variables; make them with ``layer.add_weight(..., trainable=False)``.

        Returns:
            The variables by name.
        """

    @abc.abstractmethod
    def __call__(self, inputs: Any, training: bool | None, weights: Variables, **kwargs) -> Any:
        """Fake-quantize a tensor.

        Args:
            inputs: tensor.
            training: whether the model trains.
            weights: what ``build`` returned.
            **kwargs: for subclasses; the wrapper passes none.

        Returns:
            Tensor of the shape and type of ``inputs``.
        """

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Arguments of ``__init__`` as plain values."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Quantizer":
        """Quantizer from what ``get_config`` returned."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="tfptq")
class WeightQuantizer(Quantizer):
    """Symmetric codes of a kernel with one scale for each block.

    Args:
        bits: width of the codes.
        granularity: which weights share a scale.
        scaler: ``"float"``, ``"shift"`` or another kind of ``BlockScales``.
        view: way from the kernel to ``[O, I, T]``; None for kernels laid out as in Dense and Conv2D,
            ``[taps..., I, O]``.

    Raises:
        ValueError: ``QuantizationConfig`` refuses the combination.
    """

    def __init__(
        self,
        bits: int = 8,
        granularity: Granularity | None = None,
        scaler: str = "float",
        view: WeightView | None = None,
    ):
        # The config checks the values, and knows how to write a granularity down.
        self.config = QuantizationConfig(granularity or PerTensor(), scaler, bits)
        self.view = view

    @property
    def bits(self) -> int:
        """Width of the codes."""
        return self.config.weight_bits

    def build(self, tensor_shape, name, layer) -> Variables:
        """Make ``base`` and ``factors``; both start as 0, for no scales.

        Raises:
            ValueError: the kernel has another shape than the view.
        """
        view = self.view_of(tensor_shape)
        base_shape, factors_shape, _ = self._storage(view)
        factors_dtype = "float32" if self.config.scaler == "float" else "int8"
        shapes = {"base": (base_shape, "float32"), "factors": (factors_shape, factors_dtype)}
        return {
            key: layer.add_weight(
                name=f"{name}_{key}", shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
            )
            for key, (shape, dtype) in shapes.items()
        }

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantize a kernel with its stored scales."""
        scale = self._scale_tensor(tuple(inputs.shape), weights)
        return fake_quantize(inputs, scale, 0.0, *weight_code_range(self.bits))

    def assign(self, scales: BlockScales, weights: Variables, tensor_shape: tuple[int, ...]) -> None:
        """Store the scales of a kernel.

        Args:
            scales: of the kind and block shape that granularity and scaler ask for; a base of one entry may stand
                for one of many.
            weights: what ``build`` returned.
            tensor_shape: shape of the kernel.

        Raises:
            ValueError: the scales do not fit.
        """
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
        """The stored scales of a kernel, or None when there are none yet."""
        base, factors = (ops.convert_to_numpy(weights[key]) for key in ("base", "factors"))
        if not base.any():
            return None
        return BlockScales(self.config.scaler, base, factors, self._storage(self.view_of(tensor_shape))[2])

    def quantized_weight(self, kernel: np.ndarray, weights: Variables) -> QuantizedWeight:
        """Nearest codes of a kernel with its stored scales.

        Raises:
            ValueError: no scales are stored yet.
        """
        scales = self.scales(weights, kernel.shape)
        if scales is None:
            raise ValueError("the weight has no scales yet; assign a QuantizedWeight, or use quantize_apply")
        return quantize_nearest(self.view_of(kernel.shape).to_view(kernel), scales, self.bits)

    def get_config(self) -> dict[str, Any]:
        """Plain values for JSON."""
        view = None if self.view is None else dataclasses.asdict(self.view)
        return {"weight_config": self.config.to_dict(), "view": view}

    @classmethod
    def from_config(cls, config) -> "WeightQuantizer":
        """Quantizer from what ``get_config`` returned."""
        weight = QuantizationConfig.from_json(json.dumps(config["weight_config"]))
        view = config["view"]
        if view is not None:
            view = WeightView(**{key: tuple(axes) for key, axes in view.items()})
        return cls(weight.weight_bits, weight.granularity, weight.scaler, view)

    def view_of(self, tensor_shape: tuple[int, ...]) -> WeightView:
        """Way from a kernel of this shape to ``[O, I, T]``."""
        shape = tuple(tensor_shape)
        if self.view is None:
            last = len(shape) - 1
            return WeightView(shape, (last,), (last - 1,), tuple(range(last - 1)))
        if self.view.shape != shape:
            raise ValueError(f"the weight has the shape {shape} and the quantizer a view of {self.view.shape}")
        return self.view

    def _storage(self, view: WeightView) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]:
        """Shape of base, shape of factors, block shape."""
        outputs, inputs, _ = view.view_shape
        granularity, scaler = self.config.granularity, self.config.scaler
        if scaler == "shift" and isinstance(granularity, PerTensor):
            return (1,), (outputs, 1), (1, inputs)
        m, n = granularity.block_shape(outputs, inputs)
        factors = (-(-outputs // m), -(-inputs // n))
        return (1,) if scaler == "float" else factors[:1], factors, (m, n)

    def _scale_tensor(self, tensor_shape: tuple[int, ...], weights: Variables) -> Any:
        """float32 scale of every weight, in the layout of the kernel, or broadcastable to it."""
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
    """One affine grid for a whole activation tensor.

    Args:
        bits: width of the codes: 4 to 8 asymmetric, 16 symmetric.
    """

    def __init__(self, bits: int = 8):
        self.bits = QuantizationConfig(activation_bits=bits).activation_bits

    def build(self, tensor_shape, name, layer) -> Variables:
        """Make ``scale`` and ``zero_point``; a scale of 0 stands for no grid."""
        return {
            key: layer.add_weight(
                name=f"{name}_{key}", shape=(), dtype=dtype, initializer="zeros", trainable=False, autocast=False
            )
            for key, dtype in (("scale", "float32"), ("zero_point", "int32"))
        }

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantize an activation with its stored grid."""
        scale = ops.convert_to_tensor(weights["scale"])
        zero_point = ops.cast(weights["zero_point"], "float32")
        return fake_quantize(inputs, scale, zero_point, *ActivationGrid(1.0, 0, self.bits).code_range)

    def assign(self, grid: ActivationGrid, weights: Variables) -> None:
        """Store a grid.

        Raises:
            ValueError: the grid has other bits, or a scale that is not positive.
        """
        if grid.bits != self.bits or not grid.scale > 0.0:
            raise ValueError(f"{grid} does not fit an activation of {self.bits} bits with a positive scale")
        weights["scale"].assign(grid.scale)
        weights["zero_point"].assign(grid.zero_point)

    def grid(self, weights: Variables) -> ActivationGrid | None:
        """The stored grid, or None when there is none yet."""
        scale = float(ops.convert_to_numpy(weights["scale"]))
        if scale == 0.0:
            return None
        return ActivationGrid(scale, int(ops.convert_to_numpy(weights["zero_point"])), self.bits)

    def get_config(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"bits": self.bits}
