"""Slots: the places of a wrapped layer that are fake-quantized, each with its quantizer and that one's variables."""

from dataclasses import dataclass
from typing import Any

import keras

from tfptq.core.affine import ActivationGrid
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView
from tfptq.layers.quantizers import ActivationQuantizer, Quantizer, Variables, WeightQuantizer


@dataclass(frozen=True, eq=False)
class QuantizedVariable:
    """A weight of a wrapped layer.

    Attributes:
        name: as in the registry (``"kernel"``, ``"query/kernel"``).
        variable: the float weight.
        bias: what is added to the outputs of this weight, or None.
        view: way to ``[O, I, T]``; None when the registry does not know the weight.
        quantizer: how it is fake-quantized.
        variables: state of the quantizer.
    """

    name: str
    variable: keras.Variable
    bias: keras.Variable | None
    view: WeightView | None
    quantizer: Quantizer
    variables: Variables

    def fake_quantized(self, training: bool | None = None) -> Any:
        """The weight on its grid, as a tensor in its own layout."""
        return self.quantizer(self.variable.value, training, self.variables)

    def assign(self, weight: QuantizedWeight) -> None:
        """Take over codes and scales: the variable becomes the dequantized codes.

        Raises:
            TypeError: the slot has another quantizer than a ``WeightQuantizer``, or no view.
            ValueError: other bits, shape or kind of scales than the quantizer's.
        """
        self.assign_scales(weight.scales)
        if weight.bits != self.quantizer.bits or weight.codes.shape != self.view.view_shape:
            raise ValueError(
                f"weight {self.variable.path!r} takes {self.quantizer.bits}-bit codes {self.view.view_shape} and was "
                f"given {weight.bits}-bit codes {weight.codes.shape}; quantize it with the layer's own config"
            )
        self.variable.assign(self.view.from_view(weight.dequantize()))

    def assign_scales(self, scales: BlockScales) -> None:
        """Set the scales and leave the weight; for what they raise see ``assign``."""
        if not isinstance(self.quantizer, WeightQuantizer) or self.view is None:
            raise TypeError(
                f"weight {self.variable.path!r} has a {type(self.quantizer).__name__}"
                f"{' and no view' if self.view is None else ''}; codes need a WeightQuantizer and a layer that "
                "tfptq.layers.register knows"
            )
        self.quantizer.assign(scales, self.variables, tuple(self.variable.shape))

    def quantized_weight(self) -> QuantizedWeight:
        """Codes and scales of the weight as it is now.

        Raises:
            ValueError: no scales are set.
        """
        return self.quantizer.quantized_weight(keras.ops.convert_to_numpy(self.variable), self.variables)


@dataclass(frozen=True, eq=False)
class QuantizedActivation:
    """An input, an output or an activation function's result; it passes through until a grid is assigned.

    Attributes:
        name: call argument of the layer, or ``"output_0"``.
        quantizer: how it is fake-quantized.
        variables: state of the quantizer.
    """

    name: str
    quantizer: Quantizer
    variables: Variables

    def fake_quantized(self, tensor: Any, training: bool | None = None) -> Any:
        """The tensor on its grid; it keeps its Keras mask."""
        result = self.quantizer(tensor, training, self.variables)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            result._keras_mask = mask
        return result

    def assign(self, grid: ActivationGrid) -> None:
        """Set the grid.

        Raises:
            TypeError: the slot has another quantizer than an ``ActivationQuantizer``.
            ValueError: the grid has other bits than the quantizer.
        """
        if not isinstance(self.quantizer, ActivationQuantizer):
            raise TypeError(f"{self.name!r} has a {type(self.quantizer).__name__}, which takes no grid")
        self.quantizer.assign(grid, self.variables)

    def grid(self) -> ActivationGrid | None:
        """The grid of an ``ActivationQuantizer``, or None when there is none yet."""
        return self.quantizer.grid(self.variables)
