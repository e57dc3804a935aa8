"""A quantized kernel on its way into the file."""

from dataclasses import dataclass, replace

import numpy as np

from tfptq.core.blocks import QuantizedWeight
from tfptq.float_file.matching import WeightBinding
from tfptq.tflite.layouts import INT8, Layout


@dataclass(frozen=True, eq=False)
class KernelPlan:
    """What the emitter shall write for one constant kernel.

    Attributes:
        binding: where the kernel stands.
        weight: its codes and scales.
        bias: float32 ``[O]`` real bias, or None.
        layout: how the file holds the codes. The operator must be among the integer operators of the plan where the
            layout computes on integers, and only there.
    """

    binding: WeightBinding
    weight: QuantizedWeight
    bias: np.ndarray | None
    layout: Layout = INT8

    @property
    def weight_in_file(self) -> QuantizedWeight:
        """The weight with the factors that the converter fused into this use of it, and scales as the layout has."""
        factors = self.binding.row_factors
        weight = self.weight if factors is None else self.weight.times_rows(factors)
        return replace(weight, scales=self.layout.stored_scales(weight.scales))
