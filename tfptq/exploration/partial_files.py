"""Files of one quantization in which some layers compute in float."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfptq.base.progress import Progress
from tfptq.config import QuantizationConfig
from tfptq.data.checks import Batch
from tfptq.evaluation.files import keras_specs
from tfptq.evaluation.runner import FileRunner, file_ends
from tfptq.fit.sequential import DEFAULT_MAX_MEMORY
from tfptq.float_file.file_model import FileModel
from tfptq.lowering.emit import emit
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.pipeline.activations import calibrate, calibrate_again, plan_activations, with_headroom
from tfptq.pipeline.job import Activations, Job
from tfptq.pipeline.steps import convert, fit, with_layouts
from tfptq.prepare.network import FloatNetwork
from tfptq.tflite.layouts import Computes

_REASON = "left in float to tell what it costs on integers"


@dataclass(frozen=True, eq=False)
class PartialFiles:
    """A quantized network, of which files with some of its layers in float can be written.

    Attributes:
        job: the job.
        activations: grids of the whole file.
        layers: name of a layer -> its kernels with their codes, in the order of computation.
    """

    job: Job
    activations: Activations
    layers: Mapping[str, Sequence[QuantizedKernel]]

    @classmethod
    def of(cls, network: FloatNetwork, config: QuantizationConfig, seed: int, steps: Progress) -> "PartialFiles":
        """Quantize a network, and write nothing yet."""
        job = convert(network, config, seed, steps)
        activations = calibrate(job)
        kernels = fit(job, activations, None, DEFAULT_MAX_MEMORY)
        activations = calibrate_again(job, activations, kernels)
        activations, kernels = with_headroom(job, activations, kernels)
        layers: dict[str, list[QuantizedKernel]] = {}
        for kernel in with_layouts(kernels):
            layers.setdefault(kernel.id.owner, []).append(kernel)
        return cls(job, activations, layers)

    @property
    def float_content(self) -> bytes:
        """The float file."""
        return self.job.float_file.data

    def only(self, layer: str) -> bytes:
        """The file in which one layer computes on integers, and nothing else does."""
        kernels = self.layers[layer]
        used = {use.operator for kernel in kernels for use in kernel.uses}
        return self._written(kernels, set(range(len(self.job.float_file.model.operators))) - used)

    def all_but(self, layer: str) -> bytes:
        """The file in which one layer computes in float."""
        kernels = [kernel for name, each in self.layers.items() if name != layer for kernel in each]
        return self._written(kernels, {use.operator for kernel in self.layers[layer] for use in kernel.uses})

    def _written(self, kernels: Iterable[QuantizedKernel], in_float: Collection[int]) -> bytes:
        job = replace(self.job, in_float={**dict.fromkeys(in_float, _REASON), **self.job.in_float})
        known, islands = self.activations.known, self.activations.islands
        plan = plan_activations(job, self.activations.measurements, known, islands)
        integer = set(plan.operators)
        placed = []
        for kernel in kernels:
            stored = kernel.computes is not Computes.INTEGER
            uses = kernel.uses if stored else tuple(use for use in kernel.uses if use.operator in integer)
            placed += [replace(kernel, uses=uses)] if uses else []
        return emit(job.float_file.data, plan, placed).model.to_bytes()

    def outputs(self, content: bytes, batches: Iterable[Batch]) -> list[list[np.ndarray]]:
        """For each batch of samples, by input name, the outputs of a file."""
        ends = file_ends(content)
        model = self.job.network.model
        if isinstance(model, FileModel):
            names = dict(zip((row.name for row in ends.inputs), self.job.float_file.inputs, strict=True))
        else:
            ordered = zip(keras_specs(model, ends.specs), model.inputs, strict=True)
            names = {spec.name: tensor.name for spec, tensor in ordered}
        runner = FileRunner.of(content, ends)
        return [runner.run([batch[names[row.name]] for row in ends.inputs]) for batch in batches]
