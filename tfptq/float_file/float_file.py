"""The float file: the float ``.tflite`` of a model, with its kernels bound to the Keras weights they came from.

The model is converted once (``tfptq.float_file.build``). Statistics are measured on the float file, and the emitter
writes integers into it, so what is measured is what is deployed.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.core.windows import Window
from tfptq.float_file.matching import WeightBinding, replace_kernel
from tfptq.lowering.kernel_plan import KernelPlan
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True, eq=False)
class FloatFile:
    """A float ``.tflite`` and what we know about it.

    Attributes:
        data: the file.
        model: the same, unpacked; for reading only.
        bindings: the uses of constant kernels, in execution order.
        inputs: Keras input name -> tensor index.
        outputs: tensor indexes of the model's outputs.
    """

    data: bytes
    model: TFLiteModel
    bindings: tuple[WeightBinding, ...]
    inputs: dict[str, int]
    outputs: tuple[int, ...]

    @property
    def batch_size(self) -> int | None:
        """Number of samples that the file takes at once, or None for any."""
        for index in self.inputs.values():
            signature = self.model.tensors[index].shapeSignature
            if signature is None or signature[0] != -1:
                return self.model.shape(index)[0]
        return None

    def window(self, binding: WeightBinding) -> Window:
        """Geometry of the operator of a binding, for statistics."""
        return _window(self.model, binding)

    def by_tensor_name(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A batch under the names that the inputs have in the file."""
        return {self.model.name(self.inputs[name]): values for name, values in batch.items()}

    def bias(self, binding: WeightBinding) -> np.ndarray | None:
        """float32 ``[O]`` bias of the operator of a binding, or None."""
        return self.model.constant(binding.bias).reshape(-1) if binding.bias >= 0 else None

    def with_kernels(self, plans: Iterable[KernelPlan]) -> "FloatFile":
        """The same model with dequantized kernels and corrected biases in it.

        Args:
            plans: kernels to replace, with a bias each; operators and activations keep their indexes.
        """
        model = TFLiteModel(self.data)
        for plan in plans:
            kernel = plan.binding.view.from_view(plan.weight_in_file.dequantize())
            replace_kernel(model, model.operators[plan.binding.operator], kernel, plan.bias)
        data = model.to_bytes()
        return dataclasses.replace(self, data=data, model=model)

    def kernel(self, binding: WeightBinding) -> np.ndarray:
        """float32 ``[O, I, T]`` kernel of a binding as it stands in the file."""
        return binding.view.to_view(self.model.constant(binding.kernel))


def _window(model: TFLiteModel, binding: WeightBinding) -> Window:
    operator = model.operators[binding.operator]
    name = model.operator_name(operator)
    if name == "FULLY_CONNECTED":
        return Window()
    options, kernel = operator.builtinOptions, model.shape(binding.kernel)
    channels = model.shape(binding.input)[3]
    return Window(
        kernel=kernel[1:3],
        strides=(options.strideH, options.strideW),
        dilations=(getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)),
        padding=("same", "valid")[options.padding],
        groups=channels if name == "DEPTHWISE_CONV_2D" else channels // kernel[3],
        transposed=name == "TRANSPOSE_CONV",
    )
