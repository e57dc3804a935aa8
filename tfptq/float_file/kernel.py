"""A constant kernel of a float file, and the operators that read it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.core.windows import Window


class KernelId(NamedTuple):
    """What a kernel goes by, whatever its place in a file.

    Attributes:
        layer: name of the Keras layer whose weight it is; None for a kernel that is in the file alone: of a layer that
            tfptq does not know, of no Keras layer, or made or changed by the converter.
        name: name of the weight in its layer; where there is none, a path such as ``"encoder/dense"``.
    """

    layer: str | None
    name: str

    @property
    def owner(self) -> str:
        """Name of the layer, or the path where there is none: what configs and messages call it."""
        return self.name if self.layer is None else self.layer

    @property
    def label(self) -> str:
        """Name for tables: that of the layer, with that of the weight where it is not the layer's ``kernel``."""
        return self.owner if self.layer is None or self.name == "kernel" else f"{self.layer}/{self.name}"


@dataclass(frozen=True, eq=False)
class KernelUse:
    """One operator that reads a kernel.

    The converter may have multiplied the kernel by a number for each output channel. The methods account for that, so
    that nothing else needs to know.

    Attributes:
        operator: position of the operator in the float file.
        tensor: index of the constant that holds the kernel.
        input: tensor index of the activation that the kernel meets.
        output: tensor index of the result.
        view: way from the constant to ``[O, I, T]``.
        window: geometry of the operator.
        bias: float32 ``[O]``, or None.
        row_factors: float32 ``[O]`` other than 0, by which the converter multiplied the kernel, or None.
        kernel_at: position of the kernel among the inputs of the operator.
        alone: whether the operator has no other kernel, so that its result is this one's, up to a function.
    """

    operator: int
    tensor: int
    input: int
    output: int
    view: WeightView
    window: Window
    bias: np.ndarray | None = None
    row_factors: np.ndarray | None = None
    kernel_at: int = 1
    alone: bool = True

    @property
    def flips_signs(self) -> bool:
        """Whether codes change their sign on the way into the file."""
        return self.row_factors is not None and bool((self.row_factors < 0.0).any())

    @property
    def magnitudes(self) -> np.ndarray:
        """float32 ``[O]`` or ``[1]``: by what scales are multiplied on the way into the file."""
        return np.ones(1, np.float32) if self.row_factors is None else np.abs(self.row_factors)

    @property
    def kernel_bias(self) -> np.ndarray:
        """float32 ``[O]``: the bias as it would be beside the kernel itself; zeros without one."""
        if self.bias is None:
            return np.zeros(self.view.view_shape[0], np.float32)
        return self.bias if self.row_factors is None else self.bias / self.row_factors

    def kernel_outputs(self, outputs: np.ndarray) -> np.ndarray:
        """Results ``[..., O]`` of the operator, as the kernel itself would give them."""
        return outputs if self.row_factors is None else outputs / self.row_factors

    def stored_values(self, values: np.ndarray) -> np.ndarray:
        """float32 ``[O, I, T]`` of the kernel as this operator reads them."""
        return values if self.row_factors is None else values * self.row_factors[:, None, None]

    def stored_weight(self, weight: QuantizedWeight) -> QuantizedWeight:
        """Codes and scales of the kernel as this operator reads them."""
        return weight if self.row_factors is None else weight.times_rows(self.row_factors)

    def shifted_bias(self, shift: np.ndarray) -> np.ndarray:
        """float32 ``[O]``: the bias of this operator when that of the kernel moves by ``shift``, float32 ``[O]``."""
        shift = shift if self.row_factors is None else shift * self.row_factors
        return (shift if self.bias is None else self.bias + shift).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A constant kernel of a float file.

    Attributes:
        id: what it goes by.
        values: float32 ``[O, I, T]``.
        uses: the operators that read it, in execution order; one at least.
    """

    id: KernelId
    values: np.ndarray
    uses: tuple[KernelUse, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(O, I, T)``."""
        return self.uses[0].view.view_shape

    @property
    def flips_signs(self) -> bool:
        """Whether some use changes the sign of codes."""
        return any(use.flips_signs for use in self.uses)
