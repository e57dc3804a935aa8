"""The fake-quantized tensors of a wrapped layer, each with its quantizer and the variables of that."""

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
        bias: what is added to the outputs of this weight, or None.
        view: from the variable to ``[O, I, T]``; None when the registry does not know the weight.
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
            TypeError: the weight has no ``WeightQuantizer``, or no view.
            ValueError: other bits, shape or kind of scales than the quantizer's.
        """
        self.assign_scales(weight.scales)
        quantizer, view = self._quantizer_and_view()
        if weight.bits != quantizer.bits or weight.codes.shape != view.view_shape:
            raise ValueError(
                f"weight {self.variable.path!r} takes {quantizer.bits}-bit codes {view.view_shape} and was "
                f"given {weight.bits}-bit codes {weight.codes.shape}; quantize it with the layer's own config"
            )
        self.variable.assign(view.from_view(weight.dequantize()))

    def assign_scales(self, scales: BlockScales) -> None:
        """Set the scales and leave the weight; raises as ``assign`` does."""
        quantizer, _ = self._quantizer_and_view()
        quantizer.assign(scales, self.variables, tuple(self.variable.shape))

    def _quantizer_and_view(self) -> tuple[WeightQuantizer, WeightView]:
        if not isinstance(self.quantizer, WeightQuantizer) or self.view is None:
            raise TypeError(
                f"weight {self.variable.path!r} has a {type(self.quantizer).__name__}"
                f"{' and no view' if self.view is None else ''}; codes need a WeightQuantizer and a layer that "
                "tfptq.layers.register knows"
            )
        return self.quantizer, self.view

    def quantized_weight(self) -> QuantizedWeight:
        """Codes and scales of the weight as it is now; a ValueError if no scales are set."""
        quantizer, _ = self._quantizer_and_view()
        return quantizer.quantized_weight(keras.ops.convert_to_numpy(self.variable), self.variables)


@dataclass(frozen=True, eq=False)
class QuantizedActivation:
    """An input, an output or an activation function's result; it passes through until a grid is assigned.

    ``name`` is a call argument of the layer, ``"output_0"`` or ``"activation_0"``.
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
        """Set the grid, which has the bits of the quantizer; a TypeError if that is no ``ActivationQuantizer``."""
        if not isinstance(self.quantizer, ActivationQuantizer):
            raise TypeError(f"{self.name!r} has a {type(self.quantizer).__name__}, which takes no grid")
        self.quantizer.assign(grid, self.variables)

    def grid(self) -> ActivationGrid | None:
        """The grid of an ``ActivationQuantizer``, or None."""
        return self.quantizer.grid(self.variables) if isinstance(self.quantizer, ActivationQuantizer) else None
