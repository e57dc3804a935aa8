"""A kernel from its plan to its codes."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.blocks import QuantizedWeight
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.lowering.choose_layout import LayoutPlan
from tfptq.tflite.layouts import Layout


@dataclass(frozen=True)
class KernelPlan:
    """How a kernel is to be fitted and stored, decided before it is.

    Attributes:
        config: config of its layer.
        layouts: layouts that it may get, as far as they are known before the codes are.
        rounding: method that rounds the weights.
        from_statistics: whether it is fitted on statistics of its inputs and outputs, and not on mean inputs alone.
        reason: why it is not although its config asks for that, or None.
    """

    config: QuantizationConfig
    layouts: LayoutPlan
    rounding: str = "nearest"
    from_statistics: bool = False
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class QuantizedKernel(Kernel):
    """A kernel with its codes.

    Attributes:
        plan: how it was fitted.
        weight: codes and scales.
        bias_shift: float32 ``[O]`` to add to the bias of the kernel; zeros without bias correction.
        layout: how the file holds the codes.
    """

    plan: KernelPlan
    weight: QuantizedWeight
    bias_shift: np.ndarray
    layout: Layout

    @classmethod
    def of(cls, kernel: Kernel, plan: KernelPlan, weight: QuantizedWeight, bias_shift: np.ndarray) -> "QuantizedKernel":
        """A kernel with codes that every use can hold: where one flips signs, none without a mirror image."""
        fields = {field.name: getattr(kernel, field.name) for field in dataclasses.fields(Kernel)}
        return cls(**fields, plan=plan, weight=weight, bias_shift=bias_shift, layout=plan.layouts.candidates[0])

    def float_values(self, use: KernelUse) -> tuple[np.ndarray, np.ndarray]:
        """Dequantized kernel ``[O, I, T]`` and bias ``[O]`` of one use, float32."""
        return use.stored_values(self.weight.dequantize()), use.shifted_bias(self.bias_shift)

    def stored_values(self, use: KernelUse) -> tuple[np.ndarray, np.ndarray]:
        """The same, with scales as the layout holds them."""
        return self.in_file(use).dequantize(), use.shifted_bias(self.bias_shift)

    def in_file(self, use: KernelUse) -> QuantizedWeight:
        """Codes and scales as the file holds them for one use."""
        weight = use.stored_weight(self.weight)
        return dataclasses.replace(weight, scales=self.layout.stored_scales(weight.scales))
