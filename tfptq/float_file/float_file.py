"""The float ``.tflite`` of a model, with its kernels found.

The model is converted once (``tfptq.float_file.build``). Statistics are measured on the float file, and the emitter
writes integers into it, so what is measured is what is deployed.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.float_file.matching import replace_kernel
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True, eq=False)
class FloatFile:
    """A float ``.tflite`` and what we know about it.

    Attributes:
        data: the file.
        model: the same, unpacked; for reading only.
        kernels: its constant kernels, in the order of their first use.
        inputs: Keras input name -> tensor index.
        outputs: tensor indexes of the model's outputs.
    """

    data: bytes
    model: TFLiteModel
    kernels: tuple[Kernel, ...]
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

    @property
    def input_sizes(self) -> list[tuple[int | None, ...]]:
        """Shapes of the inputs, None for open sizes."""
        return [self._sizes(index) for index in self.inputs.values()]

    @property
    def output_sizes(self) -> list[tuple[int | None, ...]]:
        """Shapes of the outputs, None for open sizes."""
        return [self._sizes(index) for index in self.outputs]

    def _sizes(self, index: int) -> tuple[int | None, ...]:
        return tuple(None if size < 0 else int(size) for size in self.model.sizes(index))

    @property
    def uses(self) -> Iterator[KernelUse]:
        """The uses of all kernels."""
        return (use for kernel in self.kernels for use in kernel.uses)

    def kernel(self, layer: str | None, name: str = "kernel") -> Kernel:
        """The kernel of a layer's weight; a KeyError when there is none."""
        return next((it for it in self.kernels if it.id == (layer, name)), None) or _missing(KernelId(layer, name))

    def by_tensor_name(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A batch under the names that the inputs have in the file."""
        return {self.model.name(self.inputs[name]): values for name, values in batch.items()}

    def with_values(self, values: Mapping[KernelUse, tuple[np.ndarray, np.ndarray]]) -> "FloatFile":
        """The same file with other kernels ``[O, I, T]`` and biases ``[O]`` in some of its operators.

        Operators and activations keep their indexes; ``kernels`` are as before.
        """
        model = TFLiteModel(self.data)
        for use, (kernel, bias) in values.items():
            replace_kernel(model, model.operators[use.operator], use, use.view.from_view(kernel), bias)
        return dataclasses.replace(self, data=model.to_bytes(), model=model)


def _missing(id: KernelId) -> Kernel:
    raise KeyError(f"the float file has no kernel {id.label!r}")
